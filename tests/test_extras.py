"""Missing and broken are different, and each says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.errors import BrokenExtraError, MissingExtraError
from eightfold.extras import EXTRA_OF, installed, require


def test_a_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRA_OF, "eightfold_absent", "cpu")
    with pytest.raises(MissingExtraError) as caught:
        require("eightfold_absent.part", "run models")
    assert str(caught.value) == (
        "eightfold_absent is not installed, and is needed to run models; run: pip install 'eightfold[cpu]'"
    )


def test_a_broken_package_does_not_look_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eightfold_broken.py").write_text("raise ImportError('libfoo.so.9: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BrokenExtraError) as caught:
        require("eightfold_broken", "run models")
    assert str(caught.value) == (
        "eightfold_broken is installed but cannot be imported (libfoo.so.9: cannot open shared object file), "
        "and is needed to run models; run: eightfold doctor"
    )


def test_a_defect_inside_a_package_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eightfold_defect.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        require("eightfold_defect", "run models")


def test_what_is_there_is_handed_out() -> None:
    assert installed("json")
    assert require("json.decoder", "read JSON").__name__ == "json.decoder"
