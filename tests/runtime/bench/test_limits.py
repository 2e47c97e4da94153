"""Numbers that make no sense are refused before anything is loaded."""

from __future__ import annotations

import pytest

from eightfold.errors import UsageError
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bench.interleave import Schedule


@pytest.mark.parametrize("threads", [0, -4])
def test_threads(threads: int) -> None:
    with pytest.raises(UsageError, match=f"^{threads} threads; allowed: 1 to [0-9]+ on this machine; leave it out"):
        SessionOptions(threads=threads)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_seconds(seconds: float) -> None:
    with pytest.raises(UsageError, match="seconds for each row; allowed: a positive number"):
        Schedule(seconds=seconds)
