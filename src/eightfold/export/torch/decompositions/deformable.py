"""Deformable convolution (Dai et al., 2017; Zhu et al., 2019) as sampling and a convolution of one pixel.

ONNX has DeformConv from opset 19 on, which hardly anything runs. GridSample is there from 16 on, and weighs neighbours
and what lies outside the image in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def deform_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    bias: torch.Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> torch.Tensor:
    """The rule of torch.ops.torchvision.deform_conv2d: all taps of the kernel are sampled at once."""
    import torch
    from torch.nn import functional

    (batch, channels, height, width), (filters, _, *kernel) = _ints(x.shape), _ints(weight.shape)
    rows, columns = _ints(offset.shape[-2:])
    taps = kernel[0] * kernel[1]
    by_group = offset.reshape(batch * offset_groups, taps, 2, rows, columns)
    down, across = np.divmod(np.arange(taps), kernel[1])
    ys = _normalized(by_group[:, :, 0], down * dilation_h - pad_h, np.arange(rows)[:, None] * stride_h, height)
    xs = _normalized(by_group[:, :, 1], across * dilation_w - pad_w, np.arange(columns)[None] * stride_w, width)
    grid = torch.stack((xs, ys), -1).reshape(batch * offset_groups, taps * rows, columns, 2)
    image = x.reshape(batch * offset_groups, channels // offset_groups, height, width)
    samples = functional.grid_sample(image, grid, "bilinear", "zeros", align_corners=False)
    if use_mask:
        shape = (batch, offset_groups, -1, taps, rows, columns)
        samples = samples.reshape(*shape) * mask.reshape(batch, offset_groups, 1, taps, rows, columns)
    flat = weight.reshape(filters, -1, 1, 1)
    return functional.conv2d(samples.reshape(batch, channels * taps, rows, columns), flat, bias, groups=groups)


def _normalized(offset: torch.Tensor, taps: Any, places: Any, length: int) -> torch.Tensor:
    """Sampling positions, from -1 at one edge of the image to 1 at the other; `offset` is in pixels."""
    import torch

    pixels = np.broadcast_to(taps[:, None, None] + places, (len(taps), *places.shape))
    middles = torch.tensor((2 * pixels + 1) / length - 1, dtype=offset.dtype, device=offset.device)
    return offset * (2 / length) + middles


def _ints(sizes: Any) -> list[int]:
    """While a module is traced, sizes are tensors."""
    return [int(size) for size in sizes]
