"""Paired tests of two networks on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 200


@dataclass(frozen=True)
class Paired:
    """The difference of a metric, second minus first, in [-1, 1].

    Attributes:
        low, high: its 95% interval; both None for McNemar's test.
        p_value: of no difference.
        only_first, only_second: images that one alone answers rightly, for McNemar's test.
    """

    test: str
    metric: str
    difference: float
    p_value: float
    low: float | None = None
    high: float | None = None
    only_first: int | None = None
    only_second: int | None = None

    def describe(self) -> str:
        """One line."""
        text = f"{self.metric} {100 * self.difference:+.1f} points from the first to the second; {self.test}: "
        if self.low is not None and self.high is not None:
            text += f"95% interval {100 * self.low:+.1f} to {100 * self.high:+.1f}, "
        if self.only_first is not None:
            text += f"{self.only_first} images right in the first alone, {self.only_second} in the second alone, "
        return f"{text}p = {self.p_value:.3g}"


def mcnemar(metric: str, first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """McNemar's exact test (Psychometrika 12, 1947): of the images on which one alone is right, half each by chance.

    >>> mcnemar("top-1", [True] * 6, [False] * 6).p_value
    0.03125
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    left, right = int((a & ~b).sum()), int((b & ~a).sum())
    total = left + right
    tail = sum(comb(total, count) for count in range(min(left, right) + 1)) / 2**total
    difference = float(b.mean() - a.mean())
    return Paired("McNemar's exact test", metric, difference, min(1.0, 2 * tail), only_first=left, only_second=right)


def bootstrap(metric: str, count: int, difference: Callable[[NDArray[np.int64]], float], *, seed: int = 0) -> Paired:
    """Percentile bootstrap over images (Efron and Tibshirani, 1993, chapter 13).

    Args:
        count: images.
        difference: of the metric on these images, which may repeat; NaN where it has no value there.
    """
    random = np.random.default_rng(seed)
    drawn = np.array([difference(random.integers(0, count, count)) for _ in range(RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn.size else (np.nan, np.nan)
    below = (np.sum(drawn <= 0) + 1) / (drawn.size + 1), (np.sum(drawn >= 0) + 1) / (drawn.size + 1)
    whole = difference(np.arange(count))
    return Paired("bootstrap over images", metric, whole, min(1.0, 2 * min(below)), float(low), float(high))
