from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eightfold.compress.trace import views
from eightfold.compress.trace.spans import runs

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(sizes)
def test_blocks_of_a_reshape_have_equal_products(before: list[int]) -> None:
    after = [prod(before[:2]), *before[2:]]
    for ins, outs in views.reshape_blocks(before, after):
        assert prod(before[dim] for dim in ins) == prod(after[dim] for dim in outs)


@given(sizes, st.data())
def test_merged_labels_are_those_of_a_numpy_reshape(shape: list[int], data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, len(shape) - 1))
    labels = np.arange(1, shape[dim] + 1)
    spread = np.broadcast_to(labels.reshape([-1 if d == dim else 1 for d in range(len(shape))]), shape)
    assert views.merge(shape, dim, labels).tolist() == spread.reshape(-1).tolist()


def test_an_empty_batch_is_reshaped_like_any_other() -> None:
    assert list(views.reshape_blocks((0, 256, 7, 7), (0, 12544))) == [([0], [0]), ([1, 2, 3], [1])]
    assert list(views.reshape_blocks((0, 90, 4), (0, 4))) == [([0], [0])]


def test_the_largest_factor_is_free_and_the_second_on_request() -> None:
    assert views.free_dimension((3, 6, 64)) == 2
    assert views.free_dimension((3, 6, 64), second=True) == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=30))
def test_runs_describe_every_index_once(places: list[tuple[int, int]]) -> None:
    table = np.array(places, dtype=np.int64)
    seen: dict[int, tuple[int, int]] = {}
    for group, spans in runs(table):
        for span in spans:
            for index, channel in zip(span.indices().tolist(), span.channels().tolist(), strict=True):
                assert index not in seen
                seen[index] = (group, channel)
    assert [seen[index] for index in range(len(places))] == places
