from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from eightfold.runtime.bench.timing import (
    QUANTILES,
    Timing,
    for_other_runs,
    interval_over_starts,
    samples_needed,
    speedup,
    speedup_over_starts,
    student_quantile,
)


@pytest.mark.parametrize("quantile", list(QUANTILES.values()))
def test_samples_needed_is_the_least_that_bounds_the_quantile(quantile: float) -> None:
    count = samples_needed(quantile)
    assert 1 - quantile**count >= 0.95 > 1 - quantile ** (count - 1)


def test_the_bound_holds_in_simulation() -> None:
    largest = np.random.default_rng(0).random((4000, samples_needed(0.99))).max(axis=1)
    assert (largest >= 0.99).mean() == pytest.approx(0.95, abs=0.015)


def test_percentiles_with_too_few_samples_are_refused() -> None:
    timing = Timing.of(np.linspace(0.001, 0.002, 58))
    assert timing.p90_ms is not None
    assert (timing.p95_ms, timing.p99_ms, timing.p999_ms) == (None, None, None)


def test_outliers_stay_in() -> None:
    times = np.full(300, 0.001)
    times[17] = 1.0
    timing = Timing.of(times)
    assert timing.max_ms == 1000
    assert timing.mean_ms == pytest.approx((299 + 1000) / 300)
    assert timing.duration_s == pytest.approx(1.299)
    assert timing.p50_ms == pytest.approx(1)


def test_speedup_is_paired_by_round() -> None:
    """Both slow down together in some rounds: the ratio stays 2, and its interval knows that."""
    load = np.repeat(np.random.default_rng(0).uniform(1, 3, 40)[:, None], 20, axis=1)
    interval = speedup(2e-3 * load, 1e-3 * load)
    assert interval.value == pytest.approx(2)
    assert interval.high - interval.low < 1e-9


def test_the_interval_of_speedup_covers_the_truth() -> None:
    """Of 100 experiments with a true ratio of 1.5, about 95 intervals hold it."""
    random = np.random.default_rng(1)
    hits = 0
    for seed in range(100):
        fast, slow = random.lognormal(0, 0.2, (2, 20, 10))
        interval = speedup(1.5 * slow, fast, resamples=200, seed=seed)
        hits += interval.low <= 1.5 <= interval.high
    assert 87 <= hits <= 100


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 9, 30, 999])
def test_quantiles_are_those_of_scipy(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.01)


def times_of_start(random: np.random.Generator, factor: float, *, rounds: int = 8) -> NDArray[np.float64]:
    """Rounds that depend on each other, AR(1) with 0.9, and calls with a long tail of stalls, all times `factor`."""
    noise = random.normal(0, 0.01, (rounds, 20))
    drift = np.zeros(rounds)
    for place in range(1, rounds):
        drift[place] = 0.9 * drift[place - 1] + random.normal(0, 0.01)
    stalls = 1 + 10 * (random.random((rounds, 20)) < 0.05)
    return np.asarray(1e-3 * factor * np.exp(noise + drift[:, None]) * stalls)


def coverage(factors: Callable[[np.random.Generator], float], truth: float, starts: int = 6) -> float:
    """The share of 300 experiments whose interval holds `truth`; each start has a factor of its own."""
    held = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        pairs = [(times_of_start(random, 2.0), times_of_start(random, factors(random))) for _ in range(starts)]
        interval = speedup_over_starts(pairs)
        held += interval.low <= truth <= interval.high
    return held / 300


def test_an_interval_over_starts_covers_the_truth() -> None:
    """Starts differ by 3%: the truth is the ratio without that. Autocorrelated rounds and stalls do not matter."""
    assert coverage(lambda random: float(np.exp(random.normal(0, 0.03))), 2.0) == pytest.approx(0.95, abs=0.035)


def test_an_interval_over_two_valued_starts_covers_their_mean() -> None:
    """Half of the starts take 1.4 times as long: the geometric mean over starts is the truth of no single start."""
    found = coverage(lambda random: float(random.choice([1.0, 1.4])), 2.0 / np.sqrt(1.4), starts=10)
    assert found >= 0.93


def test_rounds_of_one_start_miss_the_truth() -> None:
    """Why starts are needed: the bootstrap over the rounds of one of these starts holds it in fewer than half."""
    assert coverage(lambda random: float(np.exp(random.normal(0, 0.05))), 2.0, starts=1) < 0.6


def test_an_interval_holds_what_differs_from_run_to_run() -> None:
    """Each run has a factor of its own of 0.7%; all its starts share it, so that Student's interval alone misses."""
    values, alone, held = [], 0, 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        run = random.normal(0, 0.007)
        starts = interval_over_starts([float(2 * np.exp(run + random.normal(0, 0.002))) for _ in range(6)])
        wider = for_other_runs(starts)
        values.append(wider.value / starts.value)
        alone += starts.low <= 2 <= starts.high
        held += wider.low <= 2 <= wider.high
    assert alone < 0.5 * 300
    assert held >= 0.94 * 300
    assert set(values) == {1.0}


def test_the_interval_of_starts_says_how_many() -> None:
    interval = interval_over_starts([1.0, 1.1, 1.21])
    assert interval.value == pytest.approx(1.1)
    assert interval.starts == 3
    half = stats.t.ppf(0.975, 2) * np.log(1.1) / np.sqrt(3)
    assert interval.high == pytest.approx(1.1 * np.exp(half))
    assert interval.half_width == pytest.approx(np.sinh(half))
