"""Convolutions. Padding that torch's own arguments cannot say is added before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator


@operator("Conv", size_attributes={"groups": "group"})
def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    spatial = weight.dim() - 2
    stride, dilation = _each(node, "strides", spatial), _each(node, "dilations", spatial)
    pads = same_or_given(node, x.shape[2:], weight.shape[2:], stride, dilation)
    x, padding = outside(x, pads)
    bias = bias if bias is None or bias.dim() == 1 else bias.reshape(-1)  # an Add behind the node, see `fusion`
    return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * spatial, node.integer("group", 1))


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    spatial = weight.dim() - 2
    stride, dilation = _each(node, "strides", spatial), _each(node, "dilations", spatial)
    more = node.integers("output_padding", [0] * spatial)
    begin, end = _transposed_pads(node, x.shape[2:], weight.shape[2:], stride, dilation, more)
    least = [max(0, min(pair)) for pair in zip(begin, end, strict=True)]
    fits = all(extra < max(s, d) for extra, s, d in zip(more, stride, dilation, strict=True))
    out = torch.convolution(
        x, weight, bias, stride, least, dilation, True, more if fits else [0] * spatial, node.integer("group", 1)
    )
    tails = [last - even - (0 if fits else extra) for last, even, extra in zip(end, least, more, strict=True)]
    cuts = [(first - even, tail) for first, even, tail in zip(begin, least, tails, strict=True)]
    return _cut_or_grow(out, cuts)


def _cut_or_grow(x: Tensor, cuts: Sequence[tuple[int, int]]) -> Tensor:
    """Drop positions at both ends of the spatial dimensions; a negative number adds zeros."""
    if not any(any(pair) for pair in cuts):
        return x
    flat = [-size for pair in reversed(cuts) for size in pair]
    return F.pad(x, flat)


def _transposed_pads(
    node: Node,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    more: Sequence[int],
) -> tuple[list[int], list[int]]:
    spatial, auto = len(kernel), node.text("auto_pad", "NOTSET")
    wanted = node.integers("output_shape")[-spatial:]
    if not wanted and not auto.startswith("SAME"):
        pads = node.integers("pads", [0] * 2 * spatial) if auto == "NOTSET" else [0] * 2 * spatial
        return pads[:spatial], pads[spatial:]
    begin, end = [], []
    for axis in range(spatial):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        size = wanted[axis] if wanted else sizes[axis] * stride[axis]
        total = stride[axis] * (sizes[axis] - 1) + more[axis] + reach - size
        total = total if wanted else max(0, total)
        small = total // 2
        first = total - small if auto == "SAME_LOWER" or (wanted and auto != "SAME_UPPER") else small
        begin.append(first)
        end.append(total - first)
    return begin, end


def same_or_given(
    node: Node, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding at both ends of each spatial dimension."""
    spatial, auto = len(kernel), node.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for axis in range(spatial):
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            count = -(-sizes[axis] // stride[axis])
            total = max(0, (count - 1) * stride[axis] + reach - sizes[axis])
            small, large = total // 2, total - total // 2
            found.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return found
    pads = node.integers("pads", [0] * 2 * spatial) if auto == "NOTSET" else [0] * 2 * spatial
    return list(zip(pads[:spatial], pads[spatial:], strict=True))


def outside(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """The tensor with what torch's symmetric padding leaves over, and that padding."""
    if all(first == last for first, last in pads):
        return x, [first for first, _ in pads]
    return F.pad(x, [size for pair in reversed(pads) for size in pair], value=value), [0] * len(pads)


def _each(node: Node, name: str, spatial: int) -> list[int]:
    return node.integers(name, [1] * spatial)


@operator("DeformConv")
def deformable(
    node: Node, x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    from torchvision.ops import deform_conv2d

    pads = node.integers("pads", [0] * 4)
    if pads[:2] != pads[2:]:
        raise node.refuse("padding that differs between the ends")
    made: Tensor = deform_conv2d(
        x, offset, weight, bias, _each(node, "strides", 2), pads[:2], _each(node, "dilations", 2), mask
    )
    return made
