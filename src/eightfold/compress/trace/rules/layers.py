"""Convolutions, matrix products and normalisation layers."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from eightfold.compress.trace.labels import Axes, Vector, axes_of, set_axes
from eightfold.compress.trace.rules.base import Call, RawLayer, carry, has_offset, note_size, positive, rule, set_offset
from eightfold.compress.trace.rules.norms import may_shrink, note_norm


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "cudnn_convolution")
def convolution(call: Call) -> None:
    """Input channels meet the weight's input dimension group by group; the output has the weight's output dimension."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = call.args[:9]
    channel = x.dim() - weight.dim() + 1  # 1, or 0 without a batch
    w = _weight_axes(weight)
    inputs = axes_of(x).get(channel, np.zeros(x.shape[channel], dtype=np.int64))
    for dim in set(axes_of(x)) - {channel, channel - 1}:
        call.freeze(x, "convolved along", [dim])
    call.freeze(weight, "kernel size", range(2, weight.dim()))
    outputs = _transposed(call, inputs, w, groups) if transposed else _forward(call, inputs, w, groups)
    if bias is not None:
        call.join(outputs, axes_of(bias).get(0))
    if has_offset(x) and has_offset(weight):
        call.freeze(x, "convolution over channels that stay nonzero without their layer", [channel])
    set_offset(call.out, has_offset(weight) or (bias is not None and has_offset(bias)))
    if groups > 1:
        note_size(call, inputs)
    carry(call, {**_only(axes_of(x), channel - 1), channel: outputs})
    geometry = {
        "kernel_size": tuple(weight.shape[2:]), "stride": tuple(stride), "padding": tuple(padding),
        "dilation": tuple(dilation), "groups": groups,
    }  # fmt: skip
    positions = prod(x.shape[channel + 1 :]) if transposed else prod(call.out.shape[channel + 1 :])
    macs = weight.numel() * positions * prod(x.shape[:channel])
    op = "conv_transpose" if transposed else "conv"
    call.record.layers.append(RawLayer(op, call.module, weight, bias, inputs, outputs, geometry, macs))


@rule("deform_conv2d")
def deformable_convolution(call: Call) -> None:
    """A convolution that reads its input at moved positions: with the groups of offsets that its arguments give."""
    x, weight, offset, mask, bias = call.args[:5]
    groups, offset_groups = call.args[11:13]
    for moved in (offset, mask):
        call.freeze(moved, "offsets of a deformable convolution")
    inputs = axes_of(x).get(1, np.zeros(x.shape[1], dtype=np.int64))
    if offset_groups > 1:
        call.space.freeze(inputs, call.why("offset groups of a deformable convolution"))
    outputs = _forward(call, inputs, _weight_axes(weight), groups)
    call.freeze(weight, "kernel size", [2, 3])
    call.join(outputs, axes_of(bias).get(0))
    carry(call, {1: outputs})
    macs = weight.numel() * prod(call.out.shape[2:]) * x.shape[0]
    geometry = {"kernel_size": tuple(weight.shape[2:]), "groups": groups}
    call.record.layers.append(RawLayer("conv", call.module, weight, bias, inputs, outputs, geometry, macs))


def _weight_axes(weight: torch.Tensor) -> tuple[Vector, Vector]:
    axes = axes_of(weight)
    first, second = (axes.get(dim, np.zeros(weight.shape[dim], dtype=np.int64)) for dim in (0, 1))
    return first, second


def _forward(call: Call, inputs: Vector, w: tuple[Vector, Vector], groups: int) -> Vector:
    outputs, columns = w
    per_group = len(columns)
    if groups == 1:
        call.unite(inputs, columns, "input without prunable channels")
    elif per_group == 1:
        multiplier = len(outputs) // groups
        call.unite(inputs if multiplier == 1 else np.repeat(inputs, multiplier), outputs)
    else:
        _unite_conv_groups(call, inputs, columns, groups)
        call.space.unite_rows(outputs.reshape(groups, -1), call.why("convolution groups"))
    return outputs


def _transposed(call: Call, inputs: Vector, w: tuple[Vector, Vector], groups: int) -> Vector:
    rows, columns = w
    call.unite(inputs, rows, "input without prunable channels")
    if groups == 1:
        return columns
    if len(columns) == 1:
        return np.asarray(rows) if len(rows) == groups else _rows_of(call, rows, groups)
    call.space.unite_rows(rows.reshape(groups, -1), call.why("convolution groups"))
    return np.tile(columns, groups)


def _rows_of(call: Call, rows: Vector, groups: int) -> Vector:
    """Several inputs per group and one output: the inputs of a group stand and fall together."""
    table = rows.reshape(groups, -1)
    call.space.unite_rows(np.ascontiguousarray(table.T), call.why("convolution groups"))
    return np.ascontiguousarray(table[:, 0])


def _unite_conv_groups(call: Call, inputs: Vector, columns: Vector, groups: int) -> None:
    """Position j of every group meets weight index j, so that the groups keep equal counts."""
    for part in inputs.reshape(groups, -1):
        call.unite(np.ascontiguousarray(part), columns, "input without prunable channels")


@rule("addmm", "mm", "linear", "addmv", "mv")
def matrix_product(call: Call) -> None:
    """x [n, i] times weight [i, o]: i is contracted; o and n pass."""
    bias, x, weight = call.args[:3] if call.name.startswith("addm") else (None, *call.args[:2])
    rows, columns = axes_of(x), axes_of(weight)
    last = x.dim() - 1
    call.contract(x, last, weight, 0)
    axes: Axes = {dim: labels for dim, labels in rows.items() if dim < last}
    set_offset(call.out, any(has_offset(tensor) for tensor in (weight, bias) if tensor is not None))
    if 1 in columns:
        axes[last] = columns[1]
    if bias is not None and call.out.dim() and bias.shape[-1:] == call.out.shape[-1:]:
        call.join(axes.get(call.out.dim() - 1), axes_of(bias).get(bias.dim() - 1))
    set_axes(call.out, axes)
    if 1 in columns:
        inputs = rows.get(last, np.zeros(x.shape[last], dtype=np.int64))
        macs = x.numel() * weight.shape[1]
        call.record.layers.append(RawLayer("linear", call.module, weight, bias, inputs, columns[1], {}, macs))


@rule("dot", "vdot", "inner")
def dot(call: Call) -> None:
    """[i] times [i]."""
    left, right = call.args[:2]
    call.contract(left, left.dim() - 1, right, right.dim() - 1)


@rule("bmm", "baddbmm")
def batched_product(call: Call) -> None:
    """[b, n, i] times [b, i, m]: b is shared, i is contracted."""
    left, right = call.args[-2:] if call.name == "bmm" else call.args[1:3]
    a, b = axes_of(left), axes_of(right)
    call.contract(left, 2, right, 1)
    if 0 in a or 0 in b:
        call.join(a.get(0), b.get(0))
    axes = {0: a.get(0, b.get(0)), 1: a.get(1), 2: b.get(2)}
    set_axes(call.out, {dim: labels for dim, labels in axes.items() if labels is not None})


@rule(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "_batch_norm_with_update", "_batch_norm_no_update", "batch_norm", "_native_batch_norm_legit_functional",
    "_batch_norm_with_update_functional", "miopen_batch_norm",
)  # fmt: skip
def batch_norm(call: Call) -> None:
    """Scale, shift and statistics follow the channel dimension."""
    x = call.args[0]
    axes = axes_of(x)
    vectors = [tensor for tensor in call.args[1:5] if isinstance(tensor, torch.Tensor)]
    if any(tensor.shape[0] == x.shape[1] for tensor in vectors):
        for tensor in vectors:
            call.join(axes.get(1), axes_of(tensor).get(0))
    for dim in (each for each in axes if each != 1):
        # Exporters write a group norm with one group as an instance norm of one channel that holds them all.
        if may_shrink(call, x, axes[dim]):
            note_norm(call, axes[dim])
        else:
            call.freeze(x, "statistics over channels", [dim])
    set_axes(call.out, axes)
    # Zeroed scales and shifts give zero; without them, a running mean is subtracted from the zero.
    set_offset(call.out, call.args[1] is None and (has_offset(x) or call.args[3] is not None))


@rule("_weight_norm_interface", "_weight_norm")
def weight_norm(call: Call) -> None:
    """weight = v * g / |v|, the norm over all but `dim`: surgery rescales g where inputs of v go."""
    v, g = call.args[:2]
    dim = positive(call.arg(2, "dim", 0), v)
    call.join(axes_of(v).get(dim), axes_of(g).get(dim))
    set_axes(call.out, axes_of(v))


def _only(axes: Axes, dim: int) -> Axes:
    return {dim: axes[dim]} if dim in axes else {}
