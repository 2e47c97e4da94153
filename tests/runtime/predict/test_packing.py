from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.runtime.predict.packing import pack

BATCHES = st.sets(st.integers(1, 12), min_size=1, max_size=3).map(lambda found: tuple(sorted(found)))


@pytest.mark.parametrize(
    ("count", "batches", "expected"),
    [
        (1, (1, 2, 4), (1,)),
        (7, (1, 2, 4, 8), (4, 2, 1)),
        (3, (8,), (8,)),
        (17, (1, 8, 16), (16, 1)),
        (8, (3, 4), (4, 4)),
        (1000, (16,), (16,) * 63),
    ],
)
def test_pack(count: int, batches: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert pack(count, batches) == expected


@given(st.integers(1, 14), BATCHES)
def test_no_other_packing_pads_less_or_calls_less(count: int, batches: tuple[int, ...]) -> None:
    packed = pack(count, batches)
    every = (
        (sum(sizes) - count, calls)
        for calls in range(1, count + 1)
        for sizes in itertools.combinations_with_replacement(batches, calls)
        if sum(sizes) >= count
    )
    assert (sum(packed) - count, len(packed)) == min(every)


@given(st.integers(1, 3000), BATCHES)
def test_every_image_has_a_place_and_only_the_last_call_is_padded(count: int, batches: tuple[int, ...]) -> None:
    packed = pack(count, batches)
    assert sum(packed) >= count > sum(packed) - packed[-1]
    assert list(packed) == sorted(packed, reverse=True)
    assert set(packed) <= set(batches)
