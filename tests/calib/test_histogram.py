"""The stream's histogram against numpy's over all the data at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eightfold.calib.histogram import BINS, Histogram

BATCHES = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=30).map(
        lambda v: np.array(v, np.float32)
    ),
    min_size=1,
    max_size=6,
)


def histogram_of(*batches: Any) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


@given(BATCHES)
def test_batches_give_what_all_data_at_once_gives(batches: list[Any]) -> None:
    streamed, together = histogram_of(*batches), histogram_of(np.concatenate(batches))
    np.testing.assert_array_equal(streamed.counts, together.counts)
    assert (streamed.exponent, streamed.min, streamed.max) == (together.exponent, together.min, together.max)


@given(BATCHES)
def test_every_value_is_in_the_bin_that_float64_puts_it_in(batches: list[Any]) -> None:
    histogram = histogram_of(*batches)
    values = np.concatenate(batches).astype(np.float64)
    bins = np.floor(values / histogram.width).astype(int) + BINS
    np.testing.assert_array_equal(histogram.counts, np.bincount(bins, minlength=2 * BINS))


@given(BATCHES, BATCHES)
def test_merging_is_adding(first: list[Any], second: list[Any]) -> None:
    merged = histogram_of(*first)
    merged.merge(histogram_of(*second))
    together = histogram_of(*first, *second)
    np.testing.assert_array_equal(merged.counts, together.counts)
    assert (merged.min, merged.max) == (together.min, together.max)


def test_half_of_the_bins_are_in_use() -> None:
    histogram = histogram_of(np.linspace(0, 1.01, 100_000, dtype=np.float32))
    assert np.count_nonzero(histogram.counts) >= BINS // 2
