"""Operators that move data: the labels move the same way."""

from __future__ import annotations

import numpy as np
import torch

from eightfold.compress import views
from eightfold.compress.labels import Axes, Vector, axes_of, set_axes
from eightfold.compress.rules.base import Call, carry, is_uniform, note_size, positive, rule, set_offset, set_uniform


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten")
def view(call: Call) -> None:
    """Merged dimensions repeat their labels; a channel dimension that is split keeps one free factor."""
    x, out = call.args[0], call.out
    axes: Axes = {}
    before = axes_of(x)
    if before:
        unpaired = {dim for dim in before if x.shape[dim] != 1}
        for ins, outs in views.reshape_blocks(x.shape, out.shape):
            unpaired.difference_update(ins)
            merged = _merge(call, x, ins)
            if merged is not None:
                dim, labels = _split(call, merged, [out.shape[d] for d in outs])
                axes[outs[dim]] = labels
        call.freeze(x, "reshaped while it is empty", unpaired)
        _freeze_single(call, x, before)
    set_axes(out, axes)
    if is_uniform(x):
        set_uniform(out)


def _merge(call: Call, x: torch.Tensor, dims: list[int]) -> Vector | None:
    axes = axes_of(x)
    labelled = [dim for dim in dims if dim in axes]
    if not labelled:
        return None
    main = max(labelled, key=lambda dim: x.shape[dim])
    call.freeze(x, "two kinds of channels merged into one dimension", [dim for dim in labelled if dim != main])
    if len(dims) == 1:
        return axes[main]
    note_size(call, axes[main])
    merged = views.merge([x.shape[dim] for dim in dims], dims.index(main), axes[main])
    note_size(call, merged)
    return merged


def _split(call: Call, labels: Vector, sizes: list[int]) -> tuple[int, Vector]:
    """The dimension among `sizes` that carries the labels, and them; the other factors are coupled."""
    if len(sizes) == 1:
        return 0, labels
    table = labels.reshape(sizes)
    varying = views.varying(table)
    free = varying[0] if len(varying) == 1 else _choose_free(call, labels, sizes)
    if len(varying) > 1:
        rows = np.moveaxis(table, free, -1).reshape(-1, sizes[free])
        call.space.unite_rows(rows, call.why("split of a channel dimension"))
        note_size(call, labels)
    vector = views.along(table, free)
    note_size(call, vector)
    return free, vector


def _choose_free(call: Call, labels: Vector, sizes: list[int]) -> int:
    number = len(call.record.splits)
    call.record.splits.append(labels)
    return views.free_dimension(sizes, second=number in call.record.second_choice)


def _freeze_single(call: Call, x: torch.Tensor, axes: Axes) -> None:
    """Labels on a dimension of one index name a channel picked by position."""
    call.freeze(x, "one channel taken by its position", [dim for dim in axes if x.shape[dim] == 1])


@rule("permute")
def permute(call: Call) -> None:
    x = call.args[0]
    carry(call, views.move(axes_of(x), [positive(dim, x) for dim in call.args[1]]))
    _keep_uniform(call)


@rule("t", "transpose", "swapaxes", "numpy_T", "adjoint", "mT")
def transpose(call: Call) -> None:
    x = call.args[0]
    order = list(range(x.dim()))
    first, second = call.args[1:3] if len(call.args) > 2 else (-2, -1)
    if x.dim() > 1:
        first, second = positive(first, x), positive(second, x)
        order[first], order[second] = order[second], order[first]
    carry(call, views.move(axes_of(x), order))
    _keep_uniform(call)


@rule("unsqueeze")
def unsqueeze(call: Call) -> None:
    x = call.args[0]
    new = call.args[1] % (x.dim() + 1)
    carry(call, {dim + (dim >= new): labels for dim, labels in axes_of(x).items()})
    _keep_uniform(call)


@rule("squeeze")
def squeeze(call: Call) -> None:
    x = call.args[0]
    wanted = call.args[1] if len(call.args) > 1 else range(x.dim())
    wanted = [wanted] if isinstance(wanted, int) else wanted
    gone = {positive(dim, x) for dim in wanted if x.shape[dim] == 1}
    call.freeze(x, "one channel taken by its position", gone)
    left = [dim for dim in range(x.dim()) if dim not in gone]
    carry(call, views.move(axes_of(x), left))
    _keep_uniform(call)


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> None:
    x, out = call.args[0], call.out
    shift = out.dim() - x.dim()
    kept = {dim: labels for dim, labels in axes_of(x).items() if x.shape[dim] == out.shape[dim + shift]}
    call.freeze(x, "one channel spread over many", set(axes_of(x)) - set(kept))
    carry(call, {dim + shift: labels for dim, labels in kept.items()})
    _keep_uniform(call)


@rule("repeat", "tile")
def repeat(call: Call) -> None:
    x, out = call.args[0], call.out
    shift = out.dim() - x.dim()
    carry(call, {d + shift: np.tile(v, out.shape[d + shift] // x.shape[d]) for d, v in axes_of(x).items()})
    _keep_uniform(call)


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> None:
    x, times, dim = call.args[0], call.args[1], call.arg(2, "dim")
    if not axes_of(x) or not isinstance(times, int) or dim is None:
        call.freeze(x, "repeat_interleave")
        return
    dim = positive(dim, x)
    carry(call, {d: np.repeat(v, times) if d == dim else v for d, v in axes_of(x).items()})


@rule("flip")
def flip(call: Call) -> None:
    x = call.args[0]
    turned = {positive(dim, x) for dim in call.args[1]}
    carry(call, {d: np.ascontiguousarray(v[::-1]) if d in turned else v for d, v in axes_of(x).items()})


@rule("roll", "rot90", "constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
      "replication_pad1d", "replication_pad2d", "replication_pad3d", "tril", "triu")  # fmt: skip
def reposition(call: Call) -> None:
    """Dimensions that change keep no labels; those of equal size do."""
    x, out = call.args[0], call.out
    moved: set[int] = set()
    if call.name == "roll":
        moved = {positive(dim, x) for dim in call.arg(2, "dims", ())}
    same = {d for d in axes_of(x) if out.shape[d] == x.shape[d] and d not in moved}
    call.freeze(x, f"{call.name} along channels", set(axes_of(x)) - same)
    carry(call, {dim: axes_of(x)[dim] for dim in same})
    if call.name in ("constant_pad_nd", "pad") and call.arg(2, "value", 0):
        set_offset(out, True)
    _keep_uniform(call)


@rule("slice", "narrow")
def slice_(call: Call) -> None:
    """A slice of equal parts of the width keeps equal parts; any other cut fixes the width."""
    x, out = call.args[0], call.out
    dim = positive(call.arg(1, "dim", 0), x)
    axes = dict(axes_of(x))
    if dim in axes and out.shape[dim] != x.shape[dim]:
        start, step = call.arg(2, "start", 0) or 0, call.arg(4, "step", 1) or 1
        start = start if call.name == "narrow" or start >= 0 else start + x.shape[dim]
        axes[dim] = _cut(call, axes[dim], start, out.shape[dim], step)
    set_axes(out, axes)
    _keep_uniform(call)


def _cut(call: Call, labels: Vector, start: int, size: int, step: int) -> Vector:
    taken = np.ascontiguousarray(labels[start : start + size * step : step])
    bounds = [bound for bound in (start, start + size) if 0 < bound < len(labels)]
    if step == 1 and size > 1 and len(labels) % size == 0 and start % size == 0:
        call.space.unite_rows(labels.reshape(-1, size), call.why("cut into equal parts"))
        note_size(call, taken)
        note_size(call, labels)
    elif step == 1 and all(call.record.integers(call.module, bound) for bound in bounds):
        for bound in bounds:
            note_size(call, np.ascontiguousarray(labels[:bound]))
    else:
        call.space.freeze(labels, call.why("cut at a fixed position"))
    return taken


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk", "tensor_split",
      "split_copy")  # fmt: skip
def split(call: Call) -> None:
    x, parts = call.args[0], call.outs
    dim = positive(call.arg(2, "dim", 0), x)
    labels = axes_of(x).get(dim)
    if labels is not None and len(parts) > 1:
        _couple_parts(call, labels, [part.shape[dim] for part in parts])
        note_size(call, labels)
    start = 0
    for position, part in enumerate(parts):
        axes = dict(axes_of(x))
        if labels is not None:
            axes[dim] = np.ascontiguousarray(labels[start : start + part.shape[dim]])
            if len(parts) > 1:
                note_size(call, axes[dim], position)
        start += part.shape[dim]
        set_axes(part, axes)


def _couple_parts(call: Call, labels: Vector, sizes: list[int]) -> None:
    """Equal parts keep equal positions; other sizes must be attributes of the module, which then follow."""
    if len(set(sizes)) == 1 and sizes[0] > 1:
        call.space.unite_rows(labels.reshape(len(sizes), -1), call.why("cut into equal parts"))
    elif not all(call.record.integers(call.module, size) for size in sizes):
        call.space.freeze(labels, call.why("cut at a fixed position"))


@rule("unbind", "select")
def select(call: Call) -> None:
    """One index of a dimension, which disappears."""
    x = call.args[0]
    dim = positive(call.arg(1, "dim", 0), x)
    call.freeze(x, "one channel taken by its position", [dim])
    left = views.move(axes_of(x), [d for d in range(x.dim()) if d != dim])
    for out in call.outs:
        set_axes(out, left)
    _keep_uniform(call)


@rule("cat", "concat", "concatenate")
def cat(call: Call) -> None:
    """Labels line up along the joined dimension and are coupled along the others."""
    tensors = [tensor for tensor in call.args[0] if tensor.dim() == call.out.dim()]
    dim = positive(call.arg(1, "dim", 0), call.out)
    axes = _shared(call, tensors, skip=dim)
    pieces = [axes_of(t).get(dim, np.zeros(t.shape[dim], dtype=np.int64)) for t in tensors]
    if any(dim in axes_of(t) for t in tensors):
        axes[dim] = np.concatenate(pieces)
    set_axes(call.out, axes)


@rule("stack")
def stack(call: Call) -> None:
    tensors = call.args[0]
    new = call.arg(1, "dim", 0) % call.out.dim()
    axes = _shared(call, tensors, skip=None)
    set_axes(call.out, {dim + (dim >= new): labels for dim, labels in axes.items()})


def _shared(call: Call, tensors: list[torch.Tensor], skip: int | None) -> Axes:
    axes: Axes = {}
    for dim in range(tensors[0].dim()):
        if dim != skip and any(dim in axes_of(t) for t in tensors):
            labelled = [axes_of(t)[dim] for t in tensors if dim in axes_of(t)]
            if any(dim not in axes_of(t) and not is_uniform(t) for t in tensors):
                call.space.freeze(labelled[0], call.why(f"{call.name} with a tensor of fixed size"))
            for other in labelled[1:]:
                call.unite(labelled[0], other)
            axes[dim] = labelled[0]
    return axes


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
    x = call.args[0]
    dim = positive(call.args[1], x)
    call.freeze(x, "indexed by position", [dim])
    same = {d: v for d, v in axes_of(x).items() if d != dim and call.out.shape[d] == len(v)}
    call.freeze(x, "indexed by position", set(axes_of(x)) - set(same))
    set_axes(call.out, same)


@rule("embedding")
def embedding(call: Call) -> None:
    weight = call.args[0]
    call.freeze(weight, "embedding table", [0])
    if 1 in axes_of(weight):
        set_axes(call.out, {call.out.dim() - 1: axes_of(weight)[1]})


def _keep_uniform(call: Call) -> None:
    if is_uniform(call.args[0]):
        for out in call.outs:
            set_uniform(out)
