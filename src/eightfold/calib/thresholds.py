"""From a histogram to the range that a quantized type should cover. Pure functions in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from eightfold.calib.histogram import Counts, Histogram
from eightfold.calib.ranges import Method, TensorRange

Floats = npt.NDArray[np.float64]

COARSE, FINE = 32, 4  # "mse" tries fractions of the range on a grid of 1/32, then of 1/128 around the best
MSE_BINS = 2048
ENTROPY_BINS = 2048  # TensorRT's
ENTROPY_STRIDE = 16  # bins between the thresholds that "entropy" tries, 0.8% of the range
START_BIN = 128  # the smallest of them
NO_MASS = 1e-12


def range_of(histogram: Histogram, method: Method, *, percentile: float = 99.99) -> TensorRange:
    """The range that `method` chooses.

    - minmax: all that was seen.
    - percentile: `percentile` percent of the values; the rest is cut, half at either end where both signs occur.
    - entropy: the threshold on |x| whose 8-bit form loses the least information (Kullback-Leibler), as TensorRT's
      calibrator 2 (Migacz, "8-bit Inference with TensorRT", GTC 2017).
    - mse: the range whose 8-bit form has the least mean squared error.
    """
    seen = (histogram.min, histogram.max)
    if seen[0] == seen[1] == 0 or method in ("minmax", "moving-average"):
        return full_range(*seen)
    if method == "percentile":
        return _percentile(histogram, percentile / 100)
    return _entropy(histogram) if method == "entropy" else _mse(histogram)


def full_range(low: float, high: float) -> TensorRange:
    """The range that clips nothing."""
    return TensorRange(min=low, max=high, low=low, high=high, threshold=max(-low, high))


def magnitudes(histogram: Histogram) -> Counts:
    """Counts of |x|, in bins of the same width from zero up, cut behind the last one in use.

    A negative value on a bin's edge counts one bin further out, where [k, k + 1) mirrored is (-(k + 1), -k].
    """
    folded = histogram.counts[histogram.bins :] + histogram.counts[: histogram.bins][::-1]
    return folded[: int(np.flatnonzero(folded)[-1]) + 1]


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


def _entropy(histogram: Histogram) -> TensorRange:
    counts, width = _coarsened(magnitudes(histogram), histogram.width)
    symmetric = entropy_threshold(counts, levels=128) * width
    if histogram.min >= 0:
        unsigned = entropy_threshold(counts, levels=256) * width
        return _bounded(histogram, histogram.min, unsigned, symmetric)
    return _bounded(histogram, -symmetric, symmetric, symmetric)


def _coarsened(counts: Counts, width: float) -> tuple[Counts, float]:
    """Neighbours merged until at most ENTROPY_BINS are left."""
    while len(counts) > ENTROPY_BINS:
        counts = np.append(counts, [0] * (len(counts) % 2)).reshape(-1, 2).sum(axis=1)
        width *= 2
    return counts, width


def entropy_threshold(counts: Counts, *, levels: int) -> int:
    """The number of bins to keep, such that what is left differs least from its form with `levels` levels.

    For every number k of bins tried, P is the first k bins with all that lies behind added to the last, and Q the first
    k bins averaged, over the occupied ones, within each of `levels` levels; the least KL(P || Q) wins. Where P has mass
    and Q none, Q counts as `NO_MASS`.

    Args:
        counts: of |x|, in equal bins from zero up.
        levels: 128 for signed 8-bit types, 256 for unsigned ones.
    """
    mass = counts.astype(np.float64)
    # The zeros that a ReLU makes fall on a level exactly, and would hide the shape of the rest.
    mass[0] = mass[1] if len(mass) > 1 else mass[0]
    first = min(max(START_BIN, levels), len(mass))
    kept = np.unique(np.append(np.arange(first, len(mass), ENTROPY_STRIDE), len(mass)))
    return int(kept[np.argmin(_divergences(mass, kept, levels))])


def _divergences(mass: Floats, kept: npt.NDArray[np.int64], levels: int) -> Floats:
    """KL(P || Q) for each number of kept bins, from cumulative sums: Q is constant within a level."""
    total = mass.sum()
    below, occupied, entropy = (_cumulative(v) for v in (mass, (mass > 0).astype(np.float64), _x_log_x(mass)))
    edge = -(-np.arange(levels + 1) * kept[:, None] // levels)  # bins [edge j, edge j + 1) form level j
    level_mass = np.diff(below[edge], axis=1)
    level_log = np.log(np.maximum(level_mass / np.maximum(np.diff(occupied[edge], axis=1), 1), 1e-300))
    log_q = level_log - np.log(np.maximum(below[kept], 1e-300))[:, None]
    cut, last = total - below[kept], mass[kept - 1]
    log_q_last = np.where(last > 0, log_q[:, -1], np.log(NO_MASS))
    p_log_p = entropy[kept - 1] + _x_log_x(last + cut)
    divergences: Floats = (p_log_p - (level_mass * log_q).sum(axis=1) - cut * log_q_last) / total - np.log(total)
    return divergences


def _cumulative(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _x_log_x(values: Floats) -> Floats:
    result: Floats = values * np.log(np.where(values > 0, values, 1.0))
    return result


@dataclass(frozen=True, eq=False)
class _Mass:
    """Occupied bins: their centres and their share of all values."""

    centre: Floats
    share: Floats


def _mse(histogram: Histogram) -> TensorRange:
    mass = _mass(histogram)
    reach = max(-histogram.min, histogram.max)
    threshold = reach * _best_fraction(mass, lambda f: (-reach * f, reach * f), levels=255)
    low, high = min(histogram.min, 0.0), max(histogram.max, 0.0)
    for _ in range(2 if low < 0 < high else 1):  # one end at a time, twice: the ends hardly depend on each other
        if high > 0:
            high = histogram.max * _best_fraction(mass, partial(_with_high, low, histogram.max))
        if low < 0:
            low = histogram.min * _best_fraction(mass, partial(_with_low, histogram.min, high))
    return _bounded(histogram, low if low < 0 else histogram.min, high if high > 0 else histogram.max, threshold)


def _with_high(low: float, reach: float, fraction: float) -> tuple[float, float]:
    return low, reach * fraction


def _with_low(reach: float, high: float, fraction: float) -> tuple[float, float]:
    return reach * fraction, high


def _mass(histogram: Histogram) -> _Mass:
    """The occupied bins, merged by powers of two until at most MSE_BINS are left."""
    occupied = np.flatnonzero(histogram.counts) - histogram.bins
    merge = max(0, int(np.ceil(np.log2(max(int(np.ptp(occupied)), 1) / MSE_BINS))))
    bins, where = np.unique(occupied >> merge, return_inverse=True)
    counts = np.bincount(where, histogram.counts[occupied + histogram.bins])
    centre = (bins + 0.5) * (histogram.width * 2**merge)
    return _Mass(centre, (counts / counts.sum()).astype(np.float64))


def _best_fraction(mass: _Mass, ends: Callable[[float], tuple[float, float]], levels: int = 256) -> float:
    """The fraction in (0, 1] whose range has the least error: on a coarse grid, then on a fine one around the best."""

    def best(fractions: Floats) -> float:
        losses = [quantization_error(mass.centre, mass.share, *ends(fraction), levels) for fraction in fractions]
        return float(fractions[int(np.argmin(losses))])

    coarse = best(np.arange(1, COARSE + 1) / COARSE)
    fine = coarse + np.arange(-FINE + 1, FINE) / (COARSE * FINE)
    return best(fine[(fine > 0) & (fine <= 1)])


def quantization_error(values: Floats, share: Floats, low: float, high: float, levels: int) -> float:
    """Mean squared error of `values`, weighted by `share`, after rounding to `levels` steps from `low` to `high`."""
    step = (high - low) / (levels - 1)
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, levels - 1) - zero) * step
    return float(share @ (values - rounded) ** 2)
