"""Operators that merge and split dimensions."""

from __future__ import annotations

import numpy as np
import torch

from eightfold.compress.trace import views
from eightfold.compress.trace.labels import Axes, Vector, axes_of, set_axes
from eightfold.compress.trace.rules.base import (
    Call,
    Split,
    is_uniform,
    note_dimensions,
    note_size,
    rule,
    set_uniform,
)


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
                # A scale beside a norm, `scale.view(self.shape)`: it stays whole unless the stream may go.
                if call.record.layer_norms and len(outs) == 1 and call.record.weight(x) is not None:
                    note_size(call, labels, outs[dim])
        call.freeze(x, "reshaped while it is empty", unpaired)
        _freeze_single(call, x, before)
    set_axes(out, axes)
    note_dimensions(call)
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
    call.record.splits.append(Split(call.module, labels))
    return views.free_dimension(sizes, second=number in call.record.second_choice)


def _freeze_single(call: Call, x: torch.Tensor, axes: Axes) -> None:
    """Labels on a dimension of one index name a channel picked by position."""
    call.freeze(x, "one channel taken by its position", [dim for dim in axes if x.shape[dim] == 1])
