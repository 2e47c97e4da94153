"""Thresholds against float64 oracles that see every value."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from eightfold.calib.entropy import ENTROPY_STRIDE, NO_MASS, START_BIN, entropy_threshold
from eightfold.calib.histogram import Histogram
from eightfold.calib.quantization_error import Mass
from eightfold.calib.thresholds import range_of

RANDOM = np.random.default_rng(0)
DATA = {
    "normal": RANDOM.normal(0, 1, 200_000),
    "shifted": RANDOM.normal(2, 1, 200_000),
    "relu": np.maximum(RANDOM.normal(0, 1, 200_000), 0),
    "heavy tails": RANDOM.standard_t(3, 200_000),
    "relu of heavy tails": np.maximum(RANDOM.standard_t(2.5, 200_000), 0),
    "negative": -np.abs(RANDOM.normal(0, 1, 200_000)) - 0.5,
}


def filled(values: Any) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values.astype(np.float32), 7):
        histogram.add(part)
    return histogram


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("percent", [99.0, 99.9, 99.99])
def test_percentile_is_numpys_within_a_bin(name: str, percent: float) -> None:
    values = DATA[name].astype(np.float32).astype(np.float64)
    histogram = filled(values)
    found = range_of(histogram, "percentile", percentile=percent)
    tail = (100 - percent) / 2 if values.min() < 0 < values.max() else 100 - percent
    width = histogram.width
    magnitude = np.percentile(np.abs(values), percent, method="inverted_cdf")
    assert found.threshold == pytest.approx(magnitude, abs=2 * width)
    if values.max() > 0:
        assert found.high == pytest.approx(np.percentile(values, 100 - tail, method="inverted_cdf"), abs=2 * width)
    if values.min() < 0:
        assert found.low == pytest.approx(np.percentile(values, tail, method="inverted_cdf"), abs=2 * width)
    else:
        assert found.low == values.min()


@pytest.mark.parametrize("name", DATA)
def test_mse_is_as_good_as_trying_every_threshold_on_the_data(name: str) -> None:
    values = DATA[name].astype(np.float32).astype(np.float64)
    share = np.full(values.size, 1 / values.size)
    found = range_of(filled(values), "mse")
    reach = np.abs(values).max()
    tried = [Mass(values, share).error(-reach * f, reach * f, 255) for f in np.arange(1, 101) / 100]
    mine = Mass(values, share).error(-found.threshold, found.threshold, 255)
    assert mine <= 1.02 * min(tried)
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    full = Mass(values, share).error(min(values.min(), 0), max(values.max(), 0), 256)
    assert Mass(values, share).error(low, high, 256) <= 1.001 * full


def divergence(mass: Any, kept: int, levels: int) -> float:
    """KL(P || Q), bin by bin."""
    p = mass[:kept].copy()
    p[-1] += mass[kept:].sum()
    q = np.zeros(kept)
    edges = [-(-level * kept // levels) for level in range(levels + 1)]
    for low, high in itertools.pairwise(edges):
        inside = mass[low:high]
        if (inside > 0).any():
            q[low:high][inside > 0] = inside.sum() / (inside > 0).sum()
    p, q = p / p.sum(), q / q.sum()
    # Only the last bin can have mass in P and none in Q.
    return float(sum(a * np.log(a / (b or NO_MASS)) for a, b in zip(p, q, strict=True) if a > 0))


@pytest.mark.parametrize("name", ["normal", "heavy tails", "relu of heavy tails"])
@pytest.mark.parametrize("levels", [128, 256])
def test_entropy_is_the_loop_over_bins(name: str, levels: int) -> None:
    counts = np.histogram(np.abs(DATA[name]), bins=700)[0]
    mass = counts.astype(float)
    mass[0] = mass[1]
    tried = [*range(max(START_BIN, levels), 700, ENTROPY_STRIDE), 700]
    best = tried[int(np.argmin([divergence(mass, kept, levels) for kept in tried]))]
    assert entropy_threshold(counts, levels=levels) == best


def test_entropy_cuts_lone_outliers() -> None:
    values = np.append(DATA["normal"], [60.0])
    found = range_of(filled(values), "entropy")
    assert found.max == 60
    assert 2.5 < found.threshold < 10


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("values", [np.zeros(10), np.full(10, 3.0), np.full(10, -3.0), np.linspace(1e-30, 2e-30, 10)])
def test_degenerate_tensors_have_a_range(method: Any, values: Any) -> None:
    found = range_of(filled(values), method)
    assert found.min <= found.low <= found.high <= found.max
    assert 0 <= found.threshold <= np.abs(values).max() * 1.0001


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_nothing_that_was_not_seen_is_covered(name: str, method: Any) -> None:
    found = range_of(filled(DATA[name]), method)
    assert found.min <= found.low <= found.high <= found.max
    assert found.threshold <= max(-found.min, found.max)
