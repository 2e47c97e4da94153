"""Operators that cut tensors into parts and join them again."""

from __future__ import annotations

import numpy as np
import torch

from eightfold.compress.trace import views
from eightfold.compress.trace.labels import Axes, Vector, axes_of, set_axes
from eightfold.compress.trace.rules.base import (
    Call,
    is_uniform,
    keep_uniform,
    note_size,
    positive,
    rule,
)


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
    keep_uniform(call)


def _cut(call: Call, labels: Vector, start: int, size: int, step: int) -> Vector:
    taken = np.ascontiguousarray(labels[start : start + size * step : step])
    bounds = [bound for bound in (start, start + size) if 0 < bound < len(labels)]
    if step == 1 and size > 1 and len(labels) % size == 0 and start % size == 0:
        call.space.unite_rows(labels.reshape(-1, size), call.why("cut into equal parts"))
        note_size(call, taken)
        note_size(call, labels)
        for bound in bounds:
            note_size(call, np.ascontiguousarray(labels[:bound]))
    elif step == 1 and all(call.record.integers(call.module, bound) for bound in bounds):
        for bound in bounds:
            note_size(call, np.ascontiguousarray(labels[:bound]))
    else:
        call.space.freeze(labels, call.why("cut at a fixed position"))
    return taken


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk", "tensor_split",
      "split_copy")  # fmt: skip
def split(call: Call) -> None:
    """split and chunk along one dimension."""
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
def index_one(call: Call) -> None:
    """One index of a dimension, which disappears."""
    x = call.args[0]
    dim = positive(call.arg(1, "dim", 0), x)
    call.freeze(x, "one channel taken by its position", [dim])
    left = views.move(axes_of(x), [d for d in range(x.dim()) if d != dim])
    for out in call.outs:
        set_axes(out, left)
    keep_uniform(call)


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
    """A new dimension of several tensors; their labels are united."""
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
