"""Ranges by entropy: of those whose 8-bit form is tried, the one that loses the least information.

KL(P || Q) goes to 0 where the kept bins hold next to no mass: all is cut off into the last bin, and P and Q are one
spike. So a range counts only where it cuts off no more than it gains: the mean squared error of its 8-bit form must not
be above that of the whole range. Types with a zero point are judged on the values, symmetric ones on magnitudes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from eightfold.calib.histogram import Counts, Histogram, magnitudes
from eightfold.calib.quantization_error import SIGNED_LEVELS, UNSIGNED_LEVELS, Mass, mass_of

Floats = npt.NDArray[np.float64]
Accepts = Callable[[int], bool]

ENTROPY_BINS = 2048  # TensorRT's
ENTROPY_STRIDE = 16  # bins between the ranges that are tried, 0.8% of the whole
START_BIN = 128  # the smallest of them
NO_MASS = 1e-12
# How far the error may be above that of the whole range: rounding of bins to their centres.
SLACK = 1.0001


def entropy_range(histogram: Histogram) -> tuple[float, float, float]:
    """(low, high, threshold): what a type with a zero point should cover, and a symmetric one."""
    mass = mass_of(histogram)
    counts, width = _coarsened(magnitudes(histogram), histogram.width)
    reach = max(-histogram.min, histogram.max)
    whole = mass.error(-reach, reach, SIGNED_LEVELS)

    def gains(kept: int) -> bool:
        threshold = min(kept * width, reach)
        return mass.error(-threshold, threshold, SIGNED_LEVELS) <= SLACK * whole

    symmetric = entropy_threshold(counts, levels=128, accepts=gains) * width
    if histogram.min >= 0:
        return histogram.min, _one_sided(mass, counts, width, histogram.max), symmetric
    if histogram.max <= 0:
        return -_one_sided(_mirrored(mass), counts, width, -histogram.min), histogram.max, symmetric
    return (*_two_sided(histogram, mass), symmetric)


def _one_sided(mass: Mass, counts: Counts, width: float, reach: float) -> float:
    whole = mass.error(0.0, reach, UNSIGNED_LEVELS)

    def gains(kept: int) -> bool:
        return mass.error(0.0, min(kept * width, reach), UNSIGNED_LEVELS) <= SLACK * whole

    return entropy_threshold(counts, levels=256, accepts=gains) * width


def _mirrored(mass: Mass) -> Mass:
    return Mass(-mass.centre, mass.share)


def _two_sided(histogram: Histogram, mass: Mass) -> tuple[float, float]:
    """One end at a time, the upper one again at last: the ends hardly depend on each other."""
    below, above, width = _sides(histogram)
    whole = mass.error(histogram.min, histogram.max, UNSIGNED_LEVELS)
    low, high = len(below), len(above)

    def gains(low: int, high: int) -> bool:
        ends = max(-low * width, histogram.min), min(high * width, histogram.max)
        return mass.error(*ends, UNSIGNED_LEVELS) <= SLACK * whole

    high = _end(above, below, 0, partial(gains, low))
    low = _end(below, above[:high], above[high:].sum(), lambda kept: gains(kept, high))
    again = _end(above, below[:low], below[low:].sum(), partial(gains, low))
    return -low * width, (again if gains(low, again) else high) * width


def _end(side: Counts, others: Counts, cut: int, accepts: Accepts) -> int:
    """Number of bins of one side of zero to keep, from zero up.

    Args:
        side: counts of that side.
        others: counts that are kept of the other side, from zero up.
        cut: count of what is cut off there.
        accepts: whether a number of bins may be kept.
    """
    line = np.concatenate([others[::-1], side])
    line[0] += cut
    kept = entropy_threshold(line, levels=256, accepts=lambda bins: accepts(bins - len(others)), first=len(others) + 1)
    return kept - len(others)


def _sides(histogram: Histogram) -> tuple[Counts, Counts, float]:
    """(counts below zero, counts above, width), both from zero up, merged until at most ENTROPY_BINS are left on the
    longer side. What lies at zero is rounded exactly, and would hide the shape of the rest."""
    halves = histogram.counts[: histogram.bins][::-1], histogram.counts[histogram.bins :]
    below, above = map(_trimmed, halves)
    width = histogram.width
    while max(len(below), len(above)) > ENTROPY_BINS:
        below, above = _halved(below), _halved(above)
        width *= 2
    near = [side[place] for side, place in ((below, 0), (above, 1)) if len(side) > place]
    above = above.copy()
    above[0] = min(above[0], max(near, default=0))
    return below, above, width


def _trimmed(counts: Counts) -> Counts:
    """Without the empty bins at the end; at least one."""
    used = np.flatnonzero(counts)
    return counts[: int(used[-1]) + 1] if len(used) else counts[:1]


def _coarsened(counts: Counts, width: float) -> tuple[Counts, float]:
    """Neighbours merged until at most ENTROPY_BINS are left."""
    while len(counts) > ENTROPY_BINS:
        counts = _halved(counts)
        width *= 2
    return counts, width


def _halved(counts: Counts) -> Counts:
    merged: Counts = np.append(counts, [0] * (len(counts) % 2)).reshape(-1, 2).sum(axis=1)
    return merged


def entropy_threshold(counts: Counts, *, levels: int, accepts: Accepts | None = None, first: int = 0) -> int:
    """The number of bins to keep, such that what is left differs least from its form with `levels` levels.

    For every number k of bins tried, P is the first k bins with all that lies behind added to the last, and Q the first
    k bins averaged, over the occupied ones, within each of `levels` levels; the least KL(P || Q) wins. Where P has mass
    and Q none, Q counts as `NO_MASS`.

    Args:
        counts: of |x| in equal bins from zero up, or of x from the lower end up.
        levels: 128 for signed 8-bit types, 256 for unsigned ones.
        accepts: whether a number of bins may be kept; all of them always may.
        first: the least number of bins, beside START_BIN and `levels`. With 0, the first bin holds zero itself.
    """
    mass = counts.astype(np.float64)
    if not first:
        # The zeros that a ReLU makes fall on a level exactly, and would hide the shape of the rest.
        mass[0] = mass[1] if len(mass) > 1 else mass[0]
    least = min(max(START_BIN, levels, first), len(mass))
    kept = np.unique(np.append(np.arange(least, len(mass), ENTROPY_STRIDE), len(mass)))
    order = kept[np.argsort(_divergences(mass, kept, levels), kind="stable")]
    if accepts is None:
        return int(order[0])
    return next((int(bins) for bins in order if bins == len(mass) or accepts(int(bins))), len(mass))


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
