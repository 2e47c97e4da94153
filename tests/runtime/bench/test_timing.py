from __future__ import annotations

import numpy as np
import pytest

from eightfold.runtime.bench.timing import QUANTILES, Timing, samples_needed, speedup


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
