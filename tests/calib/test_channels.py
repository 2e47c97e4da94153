"""Ranges per channel against float64 oracles that see every value of a channel at once, for every method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.calib.channels import BINS, ChannelHistograms, channel_ranges, make_channel_observer
from eightfold.calib.histogram import MIN_EXPONENT, magnitudes
from eightfold.calib.observers import METHODS
from eightfold.calib.quantization_error import Mass
from eightfold.calib.ranges import Method, TensorRange
from eightfold.onnx_graph.graph import read_graph
from tests.calib.test_thresholds import divergence

ModelMaker = Callable[..., Path]
RANDOM = np.random.default_rng(0)
# Signed, unsigned and negative channels of very different scales, one of them dead: (rows, channels, 30, 30).
SCALES = np.array([1.0, 100.0, 0.01, 3.0, 0.0])[:, None, None]
DATA = (RANDOM.standard_t(4, (40, 5, 30, 30)) * SCALES).astype(np.float32)
DATA[:, 1] = np.maximum(DATA[:, 1], 0)
DATA[:, 3] = -np.abs(DATA[:, 3])
PERCENT = 99.9


def observed(method: Method, parts: int = 7) -> tuple[TensorRange, ...]:
    observer = make_channel_observer(method, percentile=PERCENT)
    for part in np.array_split(DATA, parts):
        observer.see(part)
    return observer.ranges()


def values_of(channel: int) -> Any:
    return DATA[:, channel].astype(np.float64).reshape(-1)


@pytest.mark.parametrize("method", METHODS)
def test_batches_do_not_matter(method: Method) -> None:
    assert observed(method, parts=1) == observed(method, parts=13)


@pytest.mark.parametrize("method", METHODS)
def test_extremes_are_those_of_the_channel(method: Method) -> None:
    assert [(r.min, r.max) for r in observed(method)] == [
        (float(DATA[:, c].min()), float(DATA[:, c].max())) for c in range(5)
    ]


def test_the_moving_average_is_the_formula() -> None:
    for channel, found in enumerate(observed("moving-average")):
        low, high = None, None
        for row in DATA[:, channel].astype(np.float64):
            low = row.min() if low is None else 0.99 * low + 0.01 * row.min()
            high = row.max() if high is None else 0.99 * high + 0.01 * row.max()
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("channel", range(4))
def test_percentile_is_numpys_within_a_bin(channel: int) -> None:
    values, found = values_of(channel), observed("percentile")[channel]
    width = 2.0 ** np.frexp(np.abs(values).max())[1] / BINS
    tail = (100 - PERCENT) / 2 if values.min() < 0 < values.max() else 100 - PERCENT
    oracle = np.percentile(np.abs(values), PERCENT, method="inverted_cdf")
    assert found.threshold == pytest.approx(oracle, abs=2 * width)
    if values.max() > 0:
        assert found.high == pytest.approx(np.percentile(values, 100 - tail, method="inverted_cdf"), abs=2 * width)
    if values.min() < 0:
        assert found.low == pytest.approx(np.percentile(values, tail, method="inverted_cdf"), abs=2 * width)


@pytest.mark.parametrize("channel", range(4))
def test_mse_is_as_good_as_trying_every_threshold_on_the_data(channel: int) -> None:
    values, found = values_of(channel), observed("mse")[channel]
    share, reach = np.full(values.size, 1 / values.size), np.abs(values).max()
    tried = [Mass(values, share).error(-reach * f, reach * f, 255) for f in np.arange(1, 101) / 100]
    assert Mass(values, share).error(-found.threshold, found.threshold, 255) <= 1.05 * min(tried)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)  # unsigned: both ends are free
    ends = [(low * a, high * b) for a in np.arange(5, 101, 5) / 100 for b in np.arange(5, 101, 5) / 100]
    best = min(Mass(values, share).error(*pair, 256) for pair in set(ends))
    assert Mass(values, share).error(min(found.low, 0.0), max(found.high, 0.0), 256) <= 1.05 * best


@pytest.mark.parametrize("channel", range(4))
def test_entropy_is_the_loop_over_bins(channel: int) -> None:
    values, found = values_of(channel), observed("entropy")[channel]
    width = 2.0 ** np.frexp(np.abs(values).max())[1] / BINS
    counts = np.bincount(np.floor(np.abs(values) / width).astype(int))
    mass = counts.astype(float)
    mass[0] = mass[1]
    share, reach = np.full(values.size, 1 / values.size), np.abs(values).max()
    whole = Mass(values, share).error(-reach, reach, 255)

    def gains(kept: int) -> bool:
        end = min(kept * width, reach)
        return Mass(values, share).error(-end, end, 255) <= whole

    tried = [kept for kept in [*range(128, len(counts), 16), len(counts)] if gains(kept)]
    best = tried[int(np.argmin([divergence(mass, kept, 128) for kept in tried]))]
    # Negative values on an edge fall one bin further out; the threshold tried next to the best may win by that.
    assert found.threshold == pytest.approx(min(best * width, np.abs(values).max()), abs=16 * width)
    unsigned = Mass(values, share).error(min(found.low, 0.0), max(found.high, 0.0), 256)
    assert unsigned <= 1.001 * Mass(values, share).error(min(values.min(), 0.0), max(values.max(), 0.0), 256)


def test_a_dead_channel_has_the_range_of_zero() -> None:
    for method in METHODS:
        assert observed(method)[4].threshold == 0


def test_counts_are_those_of_all_data_at_once() -> None:
    observer = ChannelHistograms("mse")
    for part in np.array_split(DATA[::-1], 5):
        observer.see(part)
    assert observer.counts is not None
    assert observer.exponents is not None
    assert observer.counts.shape == (5, 2 * BINS)  # whatever the number of images
    for channel in range(5):
        values = values_of(channel)
        exponent = int(np.frexp(np.abs(values).max())[1]) if values.any() else MIN_EXPONENT
        bins = np.floor(values * BINS / 2.0**exponent).astype(int) + BINS
        assert observer.exponents[channel] == exponent
        np.testing.assert_array_equal(observer.counts[channel], np.bincount(bins, minlength=2 * BINS))


def test_a_network_is_measured_channel_by_channel(residual_net: ModelMaker, rows: Any) -> None:
    path = residual_net()
    found = channel_ranges(path, rows, None, method="percentile", percentile=100.0, tensors=["stem_relu", "image"])
    assert set(found) == {"stem_relu", "image"}
    assert len(found["stem_relu"]) == 8
    assert [r.max for r in found["image"]] == pytest.approx(rows.max(axis=(0, 2, 3)))
    everything = channel_ranges(path, rows, None)
    assert set(everything) == {name for name in read_graph(path).observed}


def test_magnitudes_of_a_narrow_histogram() -> None:
    observer = ChannelHistograms("entropy")
    observer.see(np.array([[[0.5, -0.5, 0.75]]], np.float32))
    (found,) = observer.ranges()
    assert (found.min, found.max) == (-0.5, 0.75)
    from eightfold.calib.histogram import Histogram

    assert observer.counts is not None
    assert magnitudes(Histogram(0, observer.counts[0])).sum() == 3
