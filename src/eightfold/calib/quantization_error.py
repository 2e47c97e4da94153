"""Mean squared error that an 8-bit range makes on the values of a histogram."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from eightfold.calib.histogram import Histogram
from eightfold.calib.ranges import TensorRange

Floats = npt.NDArray[np.float64]
MOST_BINS = 2048
UNSIGNED_LEVELS, SIGNED_LEVELS = 256, 255
NO_ERROR_DB = 200.0  # stands for an infinite ratio


@dataclass(frozen=True, eq=False)
class Mass:
    """Occupied bins of a histogram: their centres and their share of all values.

    Args:
        function: what is done with each value next; errors are those of its results.
    """

    centre: Floats
    share: Floats
    function: Callable[[Floats], Floats] = lambda values: values

    @cached_property
    def _known(self) -> Floats:
        return self.function(self.centre)

    def error(self, low: float, high: float, levels: int) -> float:
        """Mean squared error after rounding to `levels` steps from `low` to `high`; infinite where a result is."""
        found = self.function(rounded(self.centre, low, high, levels))
        error = float(self.share @ (self._known - found) ** 2)
        return error if math.isfinite(error) else math.inf


def mass_of(histogram: Histogram, function: Callable[[Floats], Floats] | None = None) -> Mass:
    """The occupied bins, merged by powers of two until at most MOST_BINS are left."""
    occupied = np.flatnonzero(histogram.counts) - histogram.bins
    merge = max(0, int(np.ceil(np.log2(max(int(np.ptp(occupied)), 1) / MOST_BINS))))
    bins, where = np.unique(occupied >> merge, return_inverse=True)
    counts = np.bincount(where, histogram.counts[occupied + histogram.bins])
    centre = (bins + 0.5) * (histogram.width * 2**merge)
    share = (counts / counts.sum()).astype(np.float64)
    return Mass(centre, share) if function is None else Mass(centre, share, function)


def rounded(values: Floats, low: float, high: float, levels: int) -> Floats:
    """Values after rounding to `levels` steps from `low` to `high`."""
    step = (high - low) / (levels - 1)
    zero = np.round(-low / step)
    result: Floats = (np.clip(np.round(values / step) + zero, 0, levels - 1) - zero) * step
    return result


def range_errors(mass: Mass, found: TensorRange) -> tuple[float, float]:
    """The errors of a range: of the type with a zero point, and of the symmetric one."""
    unsigned = mass.error(min(found.low, 0.0), max(found.high, 0.0), UNSIGNED_LEVELS)
    return unsigned, mass.error(-found.threshold, found.threshold, SIGNED_LEVELS)


def loss_db(mass: Mass, found: TensorRange, best: TensorRange) -> float:
    """Loss of SQNR of one range against another, in dB, for the type where it is larger; 0 if there is none."""
    pairs = zip(range_errors(mass, found), range_errors(mass, best), strict=True)
    signal = float(mass.share @ mass.centre**2)
    return max(0.0, *(_sqnr_db(signal, other) - _sqnr_db(signal, own) for own, other in pairs))


def _sqnr_db(signal: float, error: float) -> float:
    if error <= 0 or signal <= 0:
        return NO_ERROR_DB
    return min(NO_ERROR_DB, float(10 * np.log10(signal / error)))
