"""Moves labels through a reshape: pure numpy, no tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from eightfold.compress.trace.labels import Axes, Vector

# Stands for an empty dimension, so that a batch of no boxes is reshaped like any other batch.
_EMPTY = 1_000_003


def reshape_blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair runs of dimensions of two shapes of equal size: the smallest runs whose products agree.

    Dimensions of size 1 belong to no run. What is left of a reshape without values, where products need not agree,
    belongs to none either: (0, 90, 4) to (0, 4).

    >>> list(reshape_blocks((2, 8, 6, 6), (2, 2, 4, 36)))
    [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    """
    left = [(dim, size or _EMPTY) for dim, size in enumerate(before) if size != 1]
    right = [(dim, size or _EMPTY) for dim, size in enumerate(after) if size != 1]
    i = j = 0
    while i < len(left) and j < len(right):
        ins, outs = [left[i][0]], [right[j][0]]
        product_in, product_out = left[i][1], right[j][1]
        while product_in != product_out:
            if product_in < product_out:
                i += 1
                if i == len(left):
                    return
                ins.append(left[i][0])
                product_in *= left[i][1]
            else:
                j += 1
                if j == len(right):
                    return
                outs.append(right[j][0])
                product_out *= right[j][1]
        i, j = i + 1, j + 1
        yield ins, outs


def merge(sizes: Sequence[int], labelled: int, labels: Vector) -> Vector:
    """Labels of the flattened run of dimensions `sizes`, when only dimension number `labelled` of it has labels."""
    inner = int(np.prod(sizes[labelled + 1 :], dtype=np.int64))
    outer = int(np.prod(sizes[:labelled], dtype=np.int64))
    return np.tile(np.repeat(labels, inner), outer)


def varying(table: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[int]:
    """Dimensions along which `table` is not constant."""
    return [
        dim for dim in range(table.ndim) if table.shape[dim] > 1 and bool((table != table.take([0], axis=dim)).any())
    ]


def along(table: np.ndarray[tuple[int, ...], np.dtype[np.int64]], dim: int) -> Vector:
    """The vector of `table` along `dim`, at the first index of every other dimension."""
    index = tuple(slice(None) if d == dim else 0 for d in range(table.ndim))
    return np.ascontiguousarray(table[index])


def free_dimension(sizes: Sequence[int], *, second: bool = False) -> int:
    """The factor of a split channel dimension that is taken to vary with the width: the largest, the last among equals.

    In `view(batch, groups, channels // groups)` the number of groups is fixed by the code and the rest follows. Where
    that factor cannot shrink (the width of an attention head), the `second` largest is tried (the number of heads).
    """
    ordered = sorted(range(len(sizes)), key=lambda dim: (sizes[dim], dim), reverse=True)
    return ordered[1 if second else 0]


def move(axes: Axes, order: Sequence[int]) -> Axes:
    """Labels after a permutation: dimension `order[d]` becomes dimension d."""
    return {new: axes[old] for new, old in enumerate(order) if old in axes}
