"""Gathers the inputs that a layer multiplies its weights with, as rows of a matrix: image patches for convolutions of
any dimension, stride, dilation and direction, plain rows for linear layers; at all positions, or at a seeded sample of
them.

Only the sampled patches are ever gathered, so that the cost of a wide early layer does not grow with its resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Describes the way a layer reads its input. A linear layer is a convolution without spatial dimensions: all tuples
    empty."""

    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    transposed: bool = False
    groups: int = 1


@dataclass(frozen=True)
class Positions:
    """Output positions: int64 [rows, 1 + spatial dimensions], the batch index first."""

    index: Tensor

    @classmethod
    def sample(cls, output_shape: Sequence[int], limit: int, seed: int) -> Positions:
        """At most `limit` positions of an output (n, channels, *spatial), without repetition."""
        sizes = (output_shape[0], *output_shape[2:])
        total = int(torch.tensor(sizes).prod())
        if total <= limit:
            flat = torch.arange(total)
        else:
            flat = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:limit].sort().values
        return cls(torch.stack(torch.unravel_index(flat, sizes), dim=1))


def output_rows(y: Tensor, positions: Positions, groups: int) -> Tensor:
    """Values of an output (n, channels, *spatial) at `positions`: [groups, rows, channels / groups]."""
    rows = y.movedim(1, -1)[tuple(positions.index.T)]
    return rows.reshape(len(rows), groups, -1).movedim(1, 0)


def input_rows(x: Tensor, geometry: Geometry, positions: Positions) -> Tensor:
    """The inputs that make each output position: [groups, rows, channels / groups * taps], zero where padding is read.

    A row times `weight_matrix` is the layer's output there, without the bias.
    """
    taps = [_tap(geometry, axis, size, positions) for axis, size in enumerate(x.shape[2:])]
    rows = len(positions.index)
    spatial = len(taps)
    index: list[Tensor] = [positions.index[:, 0].reshape(-1, *[1] * spatial)]
    mask = torch.ones([rows] + [1] * spatial, dtype=torch.bool)
    for axis, (where, valid) in enumerate(taps):
        shape = [rows] + [1] * spatial
        shape[1 + axis] = -1
        index.append(where.reshape(shape))
        mask = mask & valid.reshape(shape)
    gathered = x.movedim(1, -1)[tuple(index)]  # rows, *taps, channels
    if not bool(mask.all()):
        gathered = gathered * mask.unsqueeze(-1)
    by_channel = gathered.movedim(-1, 1).reshape(rows, geometry.groups, -1)
    return by_channel.movedim(1, 0)


def _tap(geometry: Geometry, axis: int, size: int, positions: Positions) -> tuple[Tensor, Tensor]:
    """Along one spatial axis: which input index each kernel tap reads at each position, and whether it exists."""
    out = positions.index[:, 1 + axis, None]
    taps = torch.arange(geometry.kernel[axis]) * geometry.dilation[axis]
    stride, padding = geometry.stride[axis], geometry.padding[axis]
    if geometry.transposed:
        numerator = out + padding - taps
        where, valid = numerator.div(stride, rounding_mode="floor"), numerator % stride == 0
    else:
        where = out * stride - padding + taps
        valid = torch.ones_like(where, dtype=torch.bool)
    return where.clamp(0, size - 1), valid & (where >= 0) & (where < size)


def weight_matrix(weight: Tensor, geometry: Geometry) -> Tensor:
    """A layer's weight as [groups, channels in / groups * taps, channels out / groups]."""
    if geometry.transposed:  # stored (in, out / groups, *kernel)
        by_group = weight.reshape(geometry.groups, -1, *weight.shape[1:])
        return by_group.movedim(2, -1).reshape(geometry.groups, -1, weight.shape[1])
    by_group = weight.reshape(geometry.groups, -1, *weight.shape[1:])  # stored (out, in / groups, *kernel)
    return by_group.reshape(geometry.groups, by_group.shape[1], -1).mT


def weight_from_matrix(matrix: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
    """The inverse of `weight_matrix`, for a weight of the given shape."""
    if geometry.transposed:
        per_group = matrix.reshape(geometry.groups, shape[0] // geometry.groups, *shape[2:], shape[1])
        return per_group.movedim(-1, 2).reshape(*shape)
    return matrix.mT.reshape(*shape)
