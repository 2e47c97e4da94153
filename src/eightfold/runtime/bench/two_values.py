"""Detects times that have two values: a network that is fast in one start and slow in the next.

A mean of two such values is neither, and an interval around it holds the truth by chance only. Such rows are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Two values closer than this share are not worth a mark: an interval of 5% either way contains both.
APART = 0.10
# A group of fewer than this share of the samples is made of outliers, and no second value.
SMALLEST_GROUP = 0.1
# Between two values lies a valley: the middle third between them holds at most this share of the samples.
VALLEY = 0.05
# Chance that samples of one normal distribution fall as clearly into two groups.
FALSE_ALARM = 0.01
LEAST_SAMPLES = 4


def two_values(times: Sequence[float] | NDArray[np.float64]) -> tuple[float, float] | None:
    """The two values that times cluster around; None where they do not fall into two groups.

    Three conditions hold of the split into two groups with the least variance within them: the groups are `APART`; the
    variance within is smaller than in all but `FALSE_ALARM` of samples from one normal distribution (the two-means
    cluster index, Liu et al., Journal of the American Statistical Association 103, 2008); and there is a valley between
    the groups, which a drift or a long tail has not.

    Args:
        times: of starts or of rounds, at least four; in any unit.
    """
    logs = np.sort(np.log(np.asarray(times, np.float64)))
    count = len(logs)
    if count < LEAST_SAMPLES:
        return None
    place, index = _best_split(logs)
    low, high = float(logs[:place].mean()), float(logs[place:].mean())
    if high - low < np.log1p(APART) or min(place, count - place) < SMALLEST_GROUP * count:
        return None
    third = (high - low) / 3
    between = np.count_nonzero((logs > low + third) & (logs < high - third))
    if between > VALLEY * count or index > _critical_index(count):
        return None
    return float(np.exp(low)), float(np.exp(high))


def _best_split(ordered: NDArray[np.float64]) -> tuple[int, float]:
    """The size of the lower group, and the variance within both groups divided by the whole variance."""
    places, indices = _splits(ordered[None])
    return int(places[0]), float(indices[0])


def _splits(rows: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Of each sorted row. By sums of squares: total = within + between."""
    count = rows.shape[1]
    centred = rows - rows.mean(axis=1, keepdims=True)
    total = np.square(centred).sum(axis=1)
    lower, sizes = np.cumsum(centred, axis=1)[:, :-1], np.arange(1, count)
    between = np.square(lower) * (1 / sizes + 1 / (count - sizes))
    best = between.argmax(axis=1)
    largest = between[np.arange(len(rows)), best]
    return best + 1, 1 - np.divide(largest, total, out=np.zeros_like(total), where=total > 0)


@cache
def _critical_index(count: int) -> float:
    """The index that only `FALSE_ALARM` of normal samples of this size fall below, by simulation."""
    samples = np.sort(np.random.default_rng(count).standard_normal((4000, count)), axis=1)
    return float(np.quantile(_splits(samples)[1], FALSE_ALARM))
