from __future__ import annotations

import numpy as np
import pytest

from eightfold.runtime.backends.finite import CHUNK, all_finite

DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
SIZE = 2 * CHUNK + 3


@DTYPES
@pytest.mark.parametrize("at", [0, 1, CHUNK - 1, CHUNK, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_one_number_is_enough_wherever_it_lies(dtype: str, at: int, bad: float) -> None:
    array = np.random.default_rng(0).standard_normal(SIZE).astype(dtype)
    assert all_finite(array)
    array[at] = bad
    assert not all_finite(array)


@DTYPES
def test_infinities_of_both_signs_do_not_cancel(dtype: str) -> None:
    array = np.zeros(1000, dtype)
    array[[3, 700]] = np.inf, -np.inf
    assert not all_finite(array)


@DTYPES
def test_large_numbers_are_finite_though_their_sum_is_not(dtype: str) -> None:
    array = np.full(1000, np.finfo(dtype).max, dtype)
    assert all_finite(array)
    array[-1] = np.nan
    assert not all_finite(array)


@DTYPES
def test_every_memory_layout(dtype: str) -> None:
    array = np.ones((4, 6, 8, 3), dtype)
    array[3, 5, 7, 2] = np.nan
    for view in (array, array.transpose(0, 3, 1, 2), array[..., ::-1], array[:, ::2], array[::2, 1::2]):
        assert all_finite(view) == bool(np.isfinite(view).all())


@DTYPES
def test_nothing_is_finite(dtype: str) -> None:
    assert all_finite(np.zeros((0, 3), dtype))
