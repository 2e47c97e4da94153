"""From a histogram to the range that a quantized type should cover. Pure functions in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from eightfold.calib.entropy import entropy_range
from eightfold.calib.functions_behind import Function
from eightfold.calib.histogram import Histogram, magnitudes
from eightfold.calib.quantization_error import Mass, mass_of
from eightfold.calib.ranges import Method, TensorRange

Floats = npt.NDArray[np.float64]

COARSE, FINE = 32, 4  # "mse" tries fractions of the range on a grid of 1/32, then of 1/128 around the best


def range_of(
    histogram: Histogram, method: Method, *, percentile: float = 99.99, function: Function | None = None
) -> TensorRange:
    """The range that `method` chooses.

    - minmax: all that was seen.
    - percentile: `percentile` percent of the values; the rest is cut, half at either end where both signs occur.
    - entropy: the range whose 8-bit form loses the least information (Kullback-Leibler), as TensorRT's calibrator 2
      (Migacz, "8-bit Inference with TensorRT", GTC 2017), among those that cut off no more than they gain; see
      `calib/entropy.py`.
    - mse: the range whose 8-bit form has the least mean squared error, behind `function` where all readers of the
      tensor see it through one, such as SiLU (see `calib/functions_behind.py`).
    """
    seen = (histogram.min, histogram.max)
    if seen[0] == seen[1] == 0 or method in ("minmax", "moving-average"):
        return full_range(*seen)
    if method == "percentile":
        return _percentile(histogram, percentile / 100)
    if method == "entropy":
        return _bounded(histogram, *entropy_range(histogram))
    return _mse(histogram, function)


def full_range(low: float, high: float) -> TensorRange:
    """The range that clips nothing."""
    return TensorRange(min=low, max=high, low=low, high=high, threshold=max(-low, high))


def _bounded(histogram: Histogram, low: float, high: float, threshold: float) -> TensorRange:
    """Nothing that was never seen is covered."""
    low, high = max(low, histogram.min), min(high, histogram.max)
    threshold = min(threshold, max(-histogram.min, histogram.max))
    return TensorRange(min=histogram.min, max=histogram.max, low=low, high=high, threshold=threshold)


def _percentile(histogram: Histogram, share: float) -> TensorRange:
    tail = (1 - share) / 2 if histogram.min < 0 < histogram.max else 1 - share
    total = histogram.counts.sum()
    cumulative = np.cumsum(histogram.counts) / total
    high = (np.searchsorted(cumulative, 1 - tail) + 1 - histogram.bins) * histogram.width
    low = (np.searchsorted(cumulative, tail, side="right") - histogram.bins) * histogram.width
    threshold = (np.searchsorted(np.cumsum(magnitudes(histogram)) / total, share) + 1) * histogram.width
    if histogram.min >= 0:
        return _bounded(histogram, histogram.min, high, threshold)
    return _bounded(histogram, low, histogram.max if histogram.max <= 0 else high, threshold)


def _mse(histogram: Histogram, function: Function | None) -> TensorRange:
    mass = mass_of(histogram, function)
    reach = max(-histogram.min, histogram.max)
    threshold = reach * _best_fraction(mass, lambda f: (-reach * f, reach * f), levels=255)
    low, high = min(histogram.min, 0.0), max(histogram.max, 0.0)
    for _ in range(2 if low < 0 < high else 1):  # one end at a time, twice: the ends hardly depend on each other
        if high > 0:
            high = histogram.max * _best_fraction(mass, partial(_with_high, low, histogram.max))
        if low < 0:
            low = histogram.min * _best_fraction(mass, partial(_with_low, histogram.min, high))
    if function is not None and math.isinf(max(mass.error(low, high, 256), mass.error(-threshold, threshold, 255))):
        return _mse(histogram, None)  # such as a division by what may be zero
    return _bounded(histogram, low if low < 0 else histogram.min, high if high > 0 else histogram.max, threshold)


def _with_high(low: float, reach: float, fraction: float) -> tuple[float, float]:
    return low, reach * fraction


def _with_low(reach: float, high: float, fraction: float) -> tuple[float, float]:
    return reach * fraction, high


def _best_fraction(mass: Mass, ends: Callable[[float], tuple[float, float]], levels: int = 256) -> float:
    """The fraction in (0, 1] whose range has the least error: on a coarse grid, then on a fine one around the best."""

    def best(fractions: Floats) -> float:
        losses = [mass.error(*ends(fraction), levels) for fraction in fractions]
        return float(fractions[int(np.argmin(losses))])

    coarse = best(np.arange(1, COARSE + 1) / COARSE)
    fine = coarse + np.arange(-FINE + 1, FINE) / (COARSE * FINE)
    return best(fine[(fine > 0) & (fine <= 1)])
