"""Long work tells how far along it is, in lines where there is no terminal."""

from __future__ import annotations

import itertools
from functools import partial
from types import SimpleNamespace

import pytest

from eightfold import progress


def slow_clock() -> SimpleNamespace:
    """Each look at it is 20 s later."""
    return SimpleNamespace(monotonic=partial(next, itertools.count(step=20.0)))


def test_lines_tell_what_is_left_and_at_the_end_what_it_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "time", slow_clock())
    assert list(progress.track([1, 2, 3], "measuring")) == [1, 2, 3]
    assert capsys.readouterr().err.splitlines() == [
        "  measuring: 1/3, about 40 s left",
        "  measuring: 2/3, about 20 s left",
        "  measuring: 3/3, 60 s",
    ]


def test_of_unknown_length_it_tells_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "time", slow_clock())
    assert list(progress.track(iter("ab"), "reading")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["  reading: 1 done, 20 s", "  reading: 2 done, 40 s"]
