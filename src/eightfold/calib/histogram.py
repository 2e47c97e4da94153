"""A histogram of fixed size for a stream whose range is not known beforehand, in one pass.

The bins cover [-2**e, 2**e) with BINS of them on either side of zero. When a value falls outside, e grows and
neighbouring bins merge. Because the width of a bin is a power of two, a value's bin is exact in float32, and merging is
exact too: the result is the one that all the data at once would have given, whatever the order, the batches or the
number of threads. The largest value lies in the upper half of the bins, so at least BINS / 2 of them are in use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 8192
MIN_EXPONENT = -100  # keeps the scale BINS / 2**e finite in float32
SLICE = 1 << 16  # elements binned at a time: the temporaries stay in cache

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


@dataclass
class Histogram:
    """Counts of values, with their extremes.

    >>> histogram = Histogram()
    >>> histogram.add(np.array([-1.0, 0.0, 0.5], np.float32))
    >>> histogram.add(np.array([3.0], np.float32))
    >>> histogram.width * BINS, histogram.counts.sum().item(), histogram.max
    (4.0, 4, 3.0)
    """

    exponent: int = MIN_EXPONENT
    counts: Counts = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    min: float = np.inf
    max: float = -np.inf

    @property
    def bins(self) -> int:
        """Number of bins on either side of zero: a power of two, BINS unless `counts` came with fewer."""
        return len(self.counts) // 2

    @property
    def width(self) -> float:
        """Width of a bin. Bin k covers [(k - bins) * width, (k + 1 - bins) * width)."""
        return 2.0**self.exponent / self.bins

    def add(self, values: Floats) -> bool:
        """Count finite values of any shape; False, and no use any more, where one is not finite.

        Values come from memory once: a slice in the cache is looked at for its extremes, then counted.
        """
        flat = values.reshape(-1)
        for start in range(0, flat.size, SLICE):
            part = flat[start : start + SLICE]
            low, high = float(part.min()), float(part.max())  # of a NaN, both are NaN
            if not (math.isfinite(low) and math.isfinite(high)):
                return False
            self.min, self.max = min(self.min, low), max(self.max, high)
            self._cover(max(-low, high))
            self._count(part, signed=low < 0)
        return True

    def merge(self, other: Histogram) -> None:
        """Add what another histogram counted; `other` may be widened by it."""
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        self.widen(other.exponent)
        other.widen(self.exponent)
        self.counts += other.counts

    def _cover(self, magnitude: float) -> None:
        """Widen until `magnitude` < 2**exponent. Zero lies in the same bin whatever the width."""
        if magnitude > 0:
            self.widen(int(np.frexp(magnitude)[1]))

    def widen(self, exponent: int) -> None:
        """Cover [-2**exponent, 2**exponent) at least."""
        steps = exponent - self.exponent
        if steps <= 0:
            return
        occupied = np.flatnonzero(self.counts)
        merged = np.zeros_like(self.counts)
        # Shifting right is the floor division that the new bin numbers need, for negative numbers too.
        np.add.at(merged, self.bins + ((occupied - self.bins) >> min(steps, 62)), self.counts[occupied])
        self.counts, self.exponent = merged, exponent

    def _count(self, values: Floats, *, signed: bool) -> None:
        scaled = values * np.float32(self.bins / 2.0**self.exponent)
        if not signed:
            self.counts[self.bins :] += np.bincount(scaled.astype(np.int64), minlength=self.bins)
            return
        np.floor(scaled, out=scaled)
        bins = scaled.astype(np.int64)
        bins += self.bins
        self.counts += np.bincount(bins, minlength=2 * self.bins)


def magnitudes(histogram: Histogram) -> Counts:
    """Counts of |x|, in bins of the same width from zero up, cut behind the last one in use.

    A negative value on a bin's edge counts one bin further out, where [k, k + 1) mirrored is (-(k + 1), -k].
    """
    folded = histogram.counts[histogram.bins :] + histogram.counts[: histogram.bins][::-1]
    return folded[: int(np.flatnonzero(folded)[-1]) + 1]
