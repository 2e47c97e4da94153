"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator
from eightfold.compress.onnx.operators.convolution import same_or_given

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@operator("GlobalAveragePool")
def global_average(node: Node, x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max(node: Node, x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.dim())), keepdim=True)


@operator("GlobalLpPool")
def global_lp(node: Node, x: Tensor) -> Tensor:
    p = node.real("p", 2)
    return x.abs().pow(p).sum(list(range(2, x.dim())), keepdim=True).pow(1 / p)


@operator("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    kernel, stride, dilation, pads = _window(node, x)
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    kernel, whole = _ceiled(node, x, kernel, stride, dilation, pads)
    plain = all(first == last and 2 * first <= size for (first, last), size in zip(pads, kernel, strict=True))
    if plain and whole == pads and node.outputs == 1 and x.is_floating_point():
        return _MAX_POOL[len(kernel)](x, kernel, stride, [first for first, _ in pads], dilation)
    wide = x if x.is_floating_point() else x.to(torch.float64)
    padded = F.pad(wide, [size for pair in reversed(whole) for size in pair], value=float(lowest))
    if node.outputs == 1:
        return _MAX_POOL[len(kernel)](padded, kernel, stride, 0, dilation).to(x.dtype)
    values, places = _MAX_POOL[len(kernel)](padded, kernel, stride, 0, dilation, return_indices=True)
    return values.to(x.dtype), _places(node, places, x.shape, padded.shape, [first for first, _ in whole])


def _places(node: Node, places: Tensor, shape: Sequence[int], padded: Sequence[int], before: Sequence[int]) -> Tensor:
    """From places in one padded map to places in the whole tensor."""
    spatial = len(shape) - 2
    coordinates = []
    for axis in reversed(range(spatial)):
        coordinates.append(places % padded[2 + axis] - before[axis])
        places = places // padded[2 + axis]
    coordinates = coordinates[::-1]
    order = range(spatial) if not node.flag("storage_order") else reversed(range(spatial))
    flat = torch.zeros_like(places)
    for axis in order:
        flat = flat * shape[2 + axis] + coordinates[axis]
    maps = torch.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *[1] * spatial)
    return flat + maps * math.prod(shape[2:])


@operator("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    kernel, stride, dilation, pads = _window(node, x)
    counted = node.flag("count_include_pad")
    kernel, whole = _ceiled(node, x, kernel, stride, dilation, pads)
    plain = whole == pads and all(
        first == last and 2 * first <= k for (first, last), k in zip(pads, kernel, strict=True)
    )
    if plain and set(dilation) == {1}:
        return _AVERAGE_POOL[len(kernel)](x, kernel, stride, [first for first, _ in pads], False, counted)
    inside = F.pad(torch.ones_like(x[:1, :1]), _flat(pads), value=1.0 if counted else 0.0)
    inside = F.pad(inside, _flat([(0, w[1] - p[1]) for w, p in zip(whole, pads, strict=True)]))
    return _windows_sum(F.pad(x, _flat(whole)), kernel, stride, dilation) / _windows_sum(
        inside, kernel, stride, dilation
    )


def _flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    return [size for pair in reversed(pads) for size in pair]


def _windows_sum(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Sum of each window, one spatial dimension after the other."""
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True)):
        dim = 2 + axis
        count = (x.shape[dim] - gap * (size - 1) - 1) // step + 1
        parts = [
            x.narrow(dim, tap * gap, (count - 1) * step + 1)[(slice(None),) * dim + (slice(None, None, step),)]
            for tap in range(size)
        ]
        x = torch.stack(parts).sum(0)
    return x


@operator("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    kernel, stride, dilation, pads = _window(node, x)
    kernel, whole = _ceiled(node, x, kernel, stride, dilation, pads)
    p = node.real("p", 2)
    powers = F.pad(x.abs().pow(p), _flat(whole))
    return _windows_sum(powers, kernel, stride, dilation).pow(1 / p)


def _window(node: Node, x: Tensor) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    kernel = node.integers("kernel_shape")
    ones = [1] * len(kernel)
    stride, dilation = node.integers("strides", ones), node.integers("dilations", ones)
    return kernel, stride, dilation, same_or_given(node, x.shape[2:], kernel, stride, dilation)


def _ceiled(
    node: Node, x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> tuple[list[int], list[tuple[int, int]]]:  # fmt: skip
    """The kernel and the padding, with what a last window beyond the edge needs. Windows that start in the padding are
    left out, and so are taps that lie beyond the padded map in every window: a kernel may be far larger than the map
    (transformers' EfficientNet pools maps of 4x4 by windows of 1280x1280)."""
    if not node.flag("ceil_mode"):
        return list(kernel), list(pads)
    sizes, found = [], []
    for axis, (first, last) in enumerate(pads):
        size, gap = x.shape[2 + axis], dilation[axis]
        count = -(-(size + first + last - gap * (kernel[axis] - 1) - 1) // stride[axis]) + 1
        if (count - 1) * stride[axis] >= size + first:
            count -= 1
        beyond = (size + first + last - 1) // gap + 1
        sizes.append(min(kernel[axis], beyond) if count > 0 else kernel[axis])
        reach = (count - 1) * stride[axis] + gap * (sizes[-1] - 1) + 1
        found.append((first, max(last, reach - size - first)))
    return sizes, found


@operator("MaxUnpool")
def max_unpool(node: Node, x: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
    kernel = node.integers("kernel_shape")
    ones = [1] * len(kernel)
    stride, pads = node.integers("strides", ones), node.integers("pads", [0] * 2 * len(kernel))
    least = [
        (size - 1) * step - pads[axis] - pads[axis + len(kernel)] + wide
        for axis, (size, step, wide) in enumerate(zip(x.shape[2:], stride, kernel, strict=True))
    ]
    sizes = [*x.shape[:2], *least]
    flat = torch.zeros(math.prod(sizes), dtype=x.dtype).scatter(0, places.reshape(-1), x.reshape(-1))
    made = flat.reshape(sizes)
    if shape is None:
        return made
    more = [wanted - have for wanted, have in zip(shape.tolist(), sizes, strict=True)]
    return F.pad(made, [size for each in reversed(more) for size in (0, each)])
