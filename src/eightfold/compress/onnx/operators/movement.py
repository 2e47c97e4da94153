"""Operators that hand values on at other places."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, axes_from, dtype_of, listed, operator


@operator("Identity", moves=True)
def identity(node: Node, x: Tensor) -> Tensor:
    return x


@operator("Cast", moves=True)
def cast(node: Node, x: Tensor) -> Tensor:
    wanted = dtype_of(node, node.integer("to", 1))
    if wanted == torch.bool:
        return x != 0
    return x.to(wanted)


@operator("CastLike")
def cast_like(node: Node, x: Tensor, other: Tensor) -> Tensor:
    return x.to(other.dtype)


@operator("Reshape", moves=True, size_inputs={"shape": 1}, by_dimension="shape")
def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = listed(shape)
    if not node.flag("allowzero"):
        sizes = [x.shape[dim] if size == 0 and dim < x.dim() else size for dim, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Flatten", moves=True)
def flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.integer("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose", moves=True)
def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.integers("perm", list(reversed(range(x.dim())))))


@operator("Squeeze", moves=True)
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_from(node, axes, x.dim())
    if not found and axes is None and "axes" not in node.attributes:
        return x.squeeze()
    for axis in found:
        if x.shape[axis] != 1:
            raise RuntimeError(f"Squeeze of a dimension of size {x.shape[axis]}")
    return x.squeeze(tuple(found)) if found else x


@operator("Unsqueeze", moves=True)
def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    wanted = listed(axes) if axes is not None else node.integers("axes")
    dims = x.dim() + len(wanted)
    for axis in sorted(axis % dims for axis in wanted):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", moves=True, size_inputs={"shape": 1}, by_dimension="shape")
def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = listed(shape)
    dims = max(len(wanted), x.dim())
    have, asked = [1] * (dims - x.dim()) + list(x.shape), [1] * (dims - len(wanted)) + wanted
    sizes = [a if b == 1 else b for a, b in zip(have, asked, strict=True)]
    return x if sizes == list(x.shape) else x.expand(sizes)


@operator("Tile", moves=True)
def tile(node: Node, x: Tensor, times: Tensor) -> Tensor:
    counts = listed(times)
    return x if set(counts) <= {1} else x.repeat(counts)


@operator("Concat", moves=True)
def concat(node: Node, *values: Tensor) -> Tensor:
    return torch.cat(list(values), node.integer("axis", 1))


@operator("Split", moves=True, size_inputs={"split": 1}, size_attributes={"split": "split"})
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.integer("axis") % x.dim()
    wanted = listed(sizes) if sizes is not None else node.integers("split")
    if not wanted:
        parts = node.integer("num_outputs", node.outputs)
        size = -(-x.shape[axis] // parts)
        wanted = [size] * (parts - 1) + [x.shape[axis] - size * (parts - 1)]
    return torch.split_with_sizes(x, wanted, axis)


@operator(
    "Slice",
    moves=True,
    size_inputs={"starts": 1, "ends": 2},
    size_attributes={"starts": "starts", "ends": "ends"},
)
def slice_(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first = listed(starts) if starts is not None else node.integers("starts")
    last = listed(ends) if ends is not None else node.integers("ends")
    dims = listed(axes) if axes is not None else node.integers("axes", range(len(first)))
    strides = listed(steps) if steps is not None else [1] * len(first)
    for start, end, dim, step in zip(first, last, dims, strides, strict=True):
        x = _sliced(x, dim % x.dim(), start, end, step)
    return x


def _sliced(x: Tensor, dim: int, start: int, end: int, step: int) -> Tensor:
    size = x.shape[dim]
    if step > 0:
        begin, stop, _ = slice(start, end, step).indices(size)
        if (begin, step) == (0, 1) and stop >= size:
            return x
        return torch.ops.aten.slice.Tensor(x, dim, begin, max(begin, stop), step)  # type: ignore[no-any-return]
    # Like Python, but that an end below -size means "to the front".
    places = range(size)[slice(start, end if end >= -size else None, step)]
    if places == range(size - 1, -1, -1):
        return x.flip(dim)
    return x.index_select(dim, torch.from_numpy(np.array(places, dtype=np.int64)))


@operator("Pad")
def pad(
    node: Node, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    sizes = listed(pads) if pads is not None else node.integers("pads")
    fill = node.real("value") if value is None else value.item()
    dims = [axis % x.dim() for axis in listed(axes)] if axes is not None else list(range(x.dim()))
    before, after = dict.fromkeys(range(x.dim()), 0), dict.fromkeys(range(x.dim()), 0)
    for place, dim in enumerate(dims):
        before[dim], after[dim] = sizes[place], sizes[place + len(dims)]
    mode = node.text("mode", "constant")
    if mode == "constant":
        flat = [size for dim in reversed(range(x.dim())) for size in (before[dim], after[dim])]
        while len(flat) > 2 and flat[-2:] == [0, 0]:
            flat = flat[:-2]
        return F.pad(x, flat, value=fill) if any(flat) else x
    return _mirrored(x, before, after, mode)


def _mirrored(x: Tensor, before: dict[int, int], after: dict[int, int], mode: str) -> Tensor:
    for dim in range(x.dim()):
        size = x.shape[dim]
        if not before[dim] and not after[dim]:
            continue
        places = torch.arange(-before[dim], size + after[dim])
        if mode == "edge":
            places = places.clamp(0, size - 1)
        elif mode == "wrap":
            places = places % size
        else:
            period = max(1, 2 * (size - 1))
            places = (places % period - (size - 1)).abs()
            places = size - 1 - places if size > 1 else torch.zeros_like(places)
        x = x.index_select(dim, places)
    return x


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    block = node.integer("blocksize", 1)
    batch, channels, height, width = x.shape
    inner = channels // block**2
    if node.text("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    parts = x.reshape(batch, block, block, inner, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, inner, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    block = node.integer("blocksize", 1)
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // block, block, width // block, block)
    parts = parts.permute(0, 1, 3, 5, 2, 4) if node.text("mode", "DCR") == "CRD" else parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * block**2, height // block, width // block)


@operator("ReverseSequence")
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    time, batch = node.integer("time_axis", 0), node.integer("batch_axis", 1)
    steps = torch.arange(x.shape[time])
    rows = [torch.where(steps < length, length - 1 - steps, steps) for length in listed(lengths)]
    images = torch.split_with_sizes(x, [1] * x.shape[batch], batch)
    parts = [image.index_select(time, row) for image, row in zip(images, rows, strict=True)]
    return torch.cat(parts, batch)
