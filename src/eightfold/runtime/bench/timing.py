"""Statistics of a list of times. Nothing is trimmed: users will see the outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from eightfold.values import Frozen

QUANTILES = {"p50_ms": 0.50, "p90_ms": 0.90, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}
CONFIDENCE = 0.95
# Half of the 95% interval, as a share, of what stays the same within a run and differs from run to run (the state of a
# shared host, its memory and clock): no run sees its own. Measured by benchmarks/bench_intervals.py.
BETWEEN_RUNS = 0.015


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
    starts: int = Field(
        default=1, ge=1, description="starts of the program that it spans; 1: rounds of one start alone"
    )

    @property
    def half_width(self) -> float:
        """Half of the interval as a share of the value."""
        return (self.high - self.low) / 2 / self.value

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
        baseline_s, candidate_s: seconds, shaped (rounds, calls per round); the same number of rounds. NaN does not
            count; a round of nothing else is left out.
    """
    ratios = _ratios(baseline_s, candidate_s)
    picks = np.random.default_rng(seed).integers(0, len(ratios), size=(resamples, len(ratios)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.median(ratios[picks], axis=1), [tail, 1 - tail])
    return Interval(value=float(np.median(ratios)), low=float(low), high=float(high))


def speedup_over_starts(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Interval:
    """Speed-up of the candidate over the baseline from several starts of the program.

    Where code and buffers lie in memory is drawn anew at each start and stays for its duration: rounds of one start
    share it, so that they alone give an interval that excludes the next start (Kalibera & Jones, ISMM 2013). Here a
    start counts as one sample, the median over its rounds of the paired ratio, and the interval is Student's over the
    logarithms of the starts, with `BETWEEN_RUNS` added. With one start it is `speedup`, over rounds.

    Args:
        pairs: baseline's and candidate's seconds of each start, as for `speedup`.
    """
    if len(pairs) == 1:
        return speedup(*pairs[0])
    return for_other_runs(interval_over_starts([float(np.median(_ratios(*pair))) for pair in pairs]))


def for_other_runs(interval: Interval) -> Interval:
    """The interval with what differs from run to run, `BETWEEN_RUNS`, added in quadrature on the logarithmic scale."""
    low, high = (
        interval.value * math.exp(sign * math.hypot(math.log(end / interval.value), BETWEEN_RUNS))
        for sign, end in ((-1, interval.low), (1, interval.high))
    )
    return interval.model_copy(update={"low": low, "high": high})


def interval_over_starts(values: Sequence[float]) -> Interval:
    """The geometric mean of one positive value per start, with Student's 95% interval; at least two starts."""
    logs = np.log(values)
    half = student_quantile(len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    middle = float(logs.mean())
    return Interval(value=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half), starts=len(logs))


def _ratios(baseline_s: NDArray[np.float64], candidate_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the medians, by round."""
    both = ~(np.isnan(baseline_s).all(axis=1) | np.isnan(candidate_s).all(axis=1))
    return np.asarray(np.nanmedian(baseline_s[both], axis=1) / np.nanmedian(candidate_s[both], axis=1))


def student_quantile(freedom: int) -> float:
    """The two-sided 95% quantile of Student's t; beyond two degrees of freedom by Abramowitz and Stegun, 26.7.5.

    >>> [round(student_quantile(freedom), 2) for freedom in (1, 2, 4, 9)]
    [12.71, 4.3, 2.78, 2.26]
    """
    if freedom == 1:
        return math.tan(math.pi * CONFIDENCE / 2)
    if freedom == 2:
        return CONFIDENCE * math.sqrt(2 / (1 - CONFIDENCE**2))
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))
