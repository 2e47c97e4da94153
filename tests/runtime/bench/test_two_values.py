"""Times with two values are marked; drifts, tails and single values are not. The oracle is simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.runtime.bench.two_values import two_values

RUNS = 400


def alarms(draw: NDArray[np.float64]) -> float:
    return float(np.mean([two_values(row) is not None for row in draw]))


@pytest.mark.parametrize("count", [6, 60])
@pytest.mark.parametrize("spread", [0.005, 0.03, 0.1])
def test_one_value_is_hardly_ever_marked(count: int, spread: float) -> None:
    random = np.random.default_rng(0)
    assert alarms(np.exp(random.normal(0, spread, (RUNS, count)))) <= 0.02


def test_tails_and_drifts_are_no_second_value() -> None:
    random = np.random.default_rng(1)
    assert alarms(np.exp(random.exponential(0.1, (RUNS, 60)))) <= 0.02
    assert alarms(np.exp(np.linspace(0, 0.5, 60) + random.normal(0, 0.01, (RUNS, 60)))) <= 0.02


@pytest.mark.parametrize(("count", "slow"), [(6, 1), (6, 3), (60, 8), (60, 30)])
def test_two_values_are_found_and_named(count: int, slow: int) -> None:
    random = np.random.default_rng(2)
    values = np.where(np.arange(count) < slow, 0.467, 0.202) * np.exp(random.normal(0, 0.01, (RUNS, count)))
    assert alarms(values) >= 0.98
    found = two_values(values[0])
    assert found == pytest.approx((0.202, 0.467), rel=0.02)


def test_values_that_an_interval_holds_together_are_one() -> None:
    assert two_values([1.0, 1.0, 1.0, 1.05, 1.05, 1.05]) is None


def test_the_few_and_the_equal() -> None:
    assert two_values([1.0, 2.0, 2.0]) is None
    assert two_values([1.0] * 6) is None
    assert two_values([1.0, 1.0, 1.0, 2.0, 2.0, 2.0]) == pytest.approx((1.0, 2.0))
