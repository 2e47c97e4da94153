"""Statistics of a list of times. Nothing is trimmed: users will see the outliers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from eightfold.values import Frozen

QUANTILES = {"p50_ms": 0.50, "p90_ms": 0.90, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}
CONFIDENCE = 0.95


def samples_needed(quantile: float, confidence: float = CONFIDENCE) -> int:
    """The least number of samples from which an upper bound for a quantile can be had at all.

    The largest of n independent samples exceeds the q-quantile with probability 1 - q^n; below the returned n no order
    statistic bounds the quantile with the wanted confidence (Wilks, Annals of Mathematical Statistics 12, 1941).

    >>> [samples_needed(q) for q in (0.5, 0.9, 0.95, 0.99, 0.999)]
    [5, 29, 59, 299, 2995]
    """
    return math.ceil(math.log(1 - confidence) / math.log(quantile))


class Timing(Frozen):
    """The distribution of one candidate's times, in milliseconds per call (not per image).

    A percentile is None when there were fewer samples than `samples_needed` asks for.
    """

    runs: int = Field(ge=1)
    duration_s: float
    mean_ms: float
    min_ms: float
    max_ms: float
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    variation: float = Field(description="standard deviation divided by mean")

    @classmethod
    def of(cls, samples_s: NDArray[np.float64]) -> Timing:
        """Args: samples_s: seconds per call, any shape, at least one."""
        times = samples_s.ravel() * 1e3
        mean = float(times.mean())
        return cls(
            runs=times.size,
            duration_s=float(times.sum() / 1e3),
            mean_ms=mean,
            min_ms=float(times.min()),
            max_ms=float(times.max()),
            variation=float(times.std() / mean) if mean else 0.0,
            **{
                name: float(np.quantile(times, q)) if times.size >= samples_needed(q) else None
                for name, q in QUANTILES.items()
            },
        )


class Interval(Frozen):
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float
    confidence: float = CONFIDENCE

    def __str__(self) -> str:
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"


def speedup(
    baseline_s: NDArray[np.float64], candidate_s: NDArray[np.float64], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Speed-up of the candidate over the baseline: the median over rounds of the ratio of the two medians within a
    round.

    The interval is a bootstrap over rounds (Efron & Tibshirani, 1993, chapter 13): both ran in every round, so
    what slows the machine for a while slows both, and pairs resampled whole keep that in common.

    Args:
        baseline_s, candidate_s: seconds, shaped (rounds, calls per round); the same number of rounds.
    """
    ratios = np.median(baseline_s, axis=1) / np.median(candidate_s, axis=1)
    picks = np.random.default_rng(seed).integers(0, len(ratios), size=(resamples, len(ratios)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.median(ratios[picks], axis=1), [tail, 1 - tail])
    return Interval(value=float(np.median(ratios)), low=float(low), high=float(high))
