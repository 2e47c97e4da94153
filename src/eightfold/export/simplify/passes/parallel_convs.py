"""Convolutions of one tensor side by side, added: V x + W x = (V + W) x, the smaller kernel laid into the larger one.

The tensor itself, and its BatchNormalization, count as convolutions with one tap. So training-time branches become the
one convolution that they were meant to be (Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again"; there the
code of each network does it, when asked to).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array
from eightfold.onnx_graph.fold_norms import is_inference_norm
from eightfold.onnx_graph.graph_index import GraphIndex, attribute, set_attribute
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class _Taps:
    """A convolution without dilation: weight (out, in / groups, *kernel) and bias in float64; `pads` are begins, then
    ends."""

    weight: Array
    bias: Array
    pads: tuple[int, ...]
    strides: tuple[int, ...]
    groups: int

    @property
    def channels(self) -> int:
        return len(self.weight)

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.weight.shape[2:]

    @property
    def begins(self) -> tuple[int, ...]:
        return self.pads[: len(self.pads) // 2]


def parallel_convs(graph: onnx.GraphProto) -> int:
    """Merge convolutions whose results are added. Returns the number of nodes removed."""
    index = GraphIndex(graph)
    gone: list[onnx.NodeProto] = []
    for add in graph.node:
        if kind(add) != "Add":
            continue
        first, second = add.input
        merged = _merge(index, add, first, second) or _merge(index, add, second, first)
        if merged:
            index.producer[add.output[0]] = merged[0]
            gone += [add, *merged[1:]]
    index.remove(gone)
    return len(gone)


def _merge(index: GraphIndex, add: onnx.NodeProto, first: str, second: str) -> list[onnx.NodeProto] | None:
    """Make the convolution behind `first` give the sum, if it can; returns it, and what else is of no more use."""
    conv = _read_by(index, first, add, "Conv")
    taps = _taps(index, conv) if conv is not None else None
    if conv is None or taps is None:
        return None
    other = _read_by(index, second, add, "Conv") or _read_by(index, second, add, "BatchNormalization")
    added = _one_tap(np.ones(taps.channels), taps) if second == conv.input[0] else None
    if other is not None and other.input[0] == conv.input[0]:
        added = _taps(index, other) if kind(other) == "Conv" else _of_norm(index, other, taps)
    total = added and (_sum(taps, added) or _sum(added, taps))
    if not total:
        return None
    _write(index, conv, total)
    conv.output[0] = add.output[0]
    return [conv, *([] if other is None else [other])]


def _read_by(index: GraphIndex, name: str, reader: onnx.NodeProto, op: str) -> onnx.NodeProto | None:
    """The operator of that name that makes a tensor, if `reader` is its only reader."""
    node = index.producer.get(name)
    outputs = [each for each in node.output if each] if node is not None else []
    if node is None or kind(node) != op or len(outputs) != 1:
        return None
    return node if index.only_reader(name) is reader else None


def _taps(index: GraphIndex, conv: onnx.NodeProto) -> _Taps | None:
    weight = index.array(conv.input[1])
    has_bias = len(conv.input) > 2 and bool(conv.input[2])
    bias = index.array(conv.input[2]) if has_bias else None
    if weight is None or (has_bias and bias is None):
        return None
    ones = (1,) * (weight.ndim - 2)
    if attribute(conv, "auto_pad", "NOTSET") != "NOTSET" or tuple(attribute(conv, "dilations", ones)) != ones:
        return None
    return _Taps(
        weight=weight.astype(np.float64),
        bias=np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64),
        pads=tuple(attribute(conv, "pads", (0, 0) * len(ones))),
        strides=tuple(attribute(conv, "strides", ones)),
        groups=attribute(conv, "group", 1),
    )


def _one_tap(gain: Array, like: _Taps, shift: Array | None = None) -> _Taps | None:
    """`gain` times each channel, plus `shift`, in the groups of a convolution; None where channels go in that do not
    come out."""
    out, within = like.weight.shape[:2]
    if not len(gain) == out == within * like.groups:
        return None
    ones = (1,) * len(like.kernel)
    weight = np.zeros((out, within, *ones))
    weight[np.arange(out), np.arange(out) % within] = gain.reshape(-1, *ones)
    bias = np.zeros(out) if shift is None else shift
    return _Taps(weight, bias, (0, 0) * len(ones), ones, like.groups)


def _of_norm(index: GraphIndex, norm: onnx.NodeProto, like: _Taps) -> _Taps | None:
    arrays = [index.array(name) for name in norm.input[1:5]]
    if not is_inference_norm(norm) or any(array is None for array in arrays):
        return None
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    gain = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    return _one_tap(gain, like, shift - gain * mean)


def _sum(large: _Taps, small: _Taps) -> _Taps | None:
    """Both in the kernel of `large`; None where `small` reaches beyond it, or steps differently."""
    shapes = large.weight.shape[:2] == small.weight.shape[:2]
    if not shapes or (large.strides, large.groups) != (small.strides, small.groups):
        return None
    starts = [a - b for a, b in zip(large.begins, small.begins, strict=True)]
    spare = [whole - start - part for whole, start, part in zip(large.kernel, starts, small.kernel, strict=True)]
    ends = [a + b for a, b in zip(small.pads[len(starts) :], spare, strict=True)]
    if min((*starts, *spare)) < 0 or tuple(ends) != large.pads[len(starts) :]:
        return None
    weight = large.weight.copy()
    inner = (slice(start, start + part) for start, part in zip(starts, small.kernel, strict=True))
    weight[(slice(None), slice(None), *inner)] += small.weight
    return replace(large, weight=weight, bias=large.bias + small.bias)


def _write(index: GraphIndex, conv: onnx.NodeProto, taps: _Taps) -> None:
    dtype = np.asarray(index.array(conv.input[1])).dtype
    name = conv.input[1]
    weight = index.set_weight(f"{name}_merged", taps.weight.astype(dtype))
    bias = index.set_weight(f"{name}_merged_bias", taps.bias.astype(dtype))
    conv.input[:] = [conv.input[0], weight, bias]
    set_attribute(conv, "kernel_shape", list(taps.kernel))
    set_attribute(conv, "pads", list(taps.pads))
