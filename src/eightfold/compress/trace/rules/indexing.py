"""Operators that pick or write positions by tensors of indices."""

from __future__ import annotations

import torch

from eightfold.compress.trace.labels import axes_of, set_axes
from eightfold.compress.trace.rules.base import (
    Call,
    is_uniform,
    positive,
    rule,
)


@rule("index", "_unsafe_index")
def index(call: Call) -> None:
    """Indexing with tensors: channels that are not indexed pass, indexed ones are fixed."""
    x, indices = call.args[0], call.args[1]
    if not axes_of(x):
        return
    indexed = [dim for dim, picked in enumerate(indices) if picked is not None]
    call.freeze(x, "indexed by position", indexed)
    consumed = {d: 1 if indices[d].dtype not in (torch.bool, torch.uint8) else indices[d].dim() for d in indexed}
    if any(count > 1 for count in consumed.values()):
        call.freeze(x, "indexed by a mask")
        return
    width = call.out.dim() - (x.dim() - len(indexed))
    adjacent = indexed == list(range(indexed[0], indexed[-1] + 1))
    first = indexed[0] if adjacent else 0
    left = [dim for dim in range(x.dim()) if dim not in indexed]
    order = left[:first], left[first:]
    places = [*order[0], *([-1] * width), *order[1]]
    set_axes(call.out, {new: axes_of(x)[old] for new, old in enumerate(places) if old in axes_of(x)})


@rule("index_put", "_index_put_impl")
def index_put(call: Call) -> None:
    """Rows written into a fresh tensor: the dimensions behind the indexed ones take the values' labels."""
    x, indices, values = call.args[:3]
    out = call.out
    shift = out.dim() - values.dim()
    indexed = {dim for dim, picked in enumerate(indices) if picked is not None}
    call.freeze(x, "written by position", indexed)
    axes = dict(axes_of(x))
    for dim, labels in axes_of(values).items():
        place = dim + shift
        if place in indexed or place < max(indexed, default=-1):
            call.freeze(values, "written by position", [dim])
        elif place in axes:
            call.unite(axes[place], labels)
        elif is_uniform(x):
            axes[place] = labels
        else:
            call.freeze(values, "written into a tensor of fixed size", [dim])
    set_axes(out, axes)


@rule("index_select", "gather", "take_along_dim")
def pick(call: Call) -> None:
    """index_select and the like: the indexed dimension is frozen."""
    x = call.args[0]
    dim = positive(call.args[1], x)
    call.freeze(x, "indexed by position", [dim])
    same = {d: v for d, v in axes_of(x).items() if d != dim and call.out.shape[d] == len(v)}
    call.freeze(x, "indexed by position", set(axes_of(x)) - set(same))
    set_axes(call.out, same)


@rule("embedding")
def embedding(call: Call) -> None:
    """Rows of a table: rows are frozen, columns keep their labels."""
    weight = call.args[0]
    call.freeze(weight, "embedding table", [0])
    if 1 in axes_of(weight):
        set_axes(call.out, {call.out.dim() - 1: axes_of(weight)[1]})
