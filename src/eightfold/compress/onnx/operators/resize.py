"""Resampling of maps, one dimension after the other, as the operator's specification defines source coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, listed, operator

Floats = npt.NDArray[np.float64]


class _Axis(NamedTuple):
    """Resampling of one dimension."""

    dim: int
    size: int
    out: int
    scale: float
    start: float  # of the region that "tf_crop_and_resize" reads, in [0, 1]
    end: float


@operator("Resize", "Upsample", size_inputs={"sizes": 3}, by_dimension="sizes")
def resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    if node.op == "Upsample" or node.opset < 11:
        scales, roi, sizes = (roi if roi is not None else scales), None, None
    axes = _axes(node, x, roi, scales, sizes)
    mode = "linear" if node.text("mode", "nearest") == "bilinear" else node.text("mode", "nearest")
    plain = _with_interpolate(node, x, axes, mode)
    if plain is not None:
        return plain
    outside = None
    for axis in axes:
        coordinates = _coordinates(node, axis, mode)
        if _transform(node) == "tf_crop_and_resize":
            beyond = (coordinates < 0) | (coordinates > axis.size - 1)
            shape = [-1 if dim == axis.dim else 1 for dim in range(x.dim())]
            found = torch.from_numpy(beyond).reshape(shape)
            outside = found if outside is None else outside | found
        if axis.out != axis.size or not np.array_equal(coordinates, np.arange(axis.size)):
            x = _resampled(node, x, axis, coordinates, mode)
    if outside is not None:
        x = x.masked_fill(outside, node.real("extrapolation_value"))
    return _with_stated_size(x)


def _with_stated_size(x: Tensor) -> Tensor:
    """The same values, by a call from which a trace learns that `sizes` states each dimension."""
    return x.view(x.shape)


def _axes(node: Node, x: Tensor, roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None) -> list[_Axis]:
    dims = [dim % x.dim() for dim in node.integers("axes", range(x.dim()))]
    wanted = listed(sizes) if sizes is not None and sizes.numel() else None
    given = [float(s) for s in scales.tolist()] if scales is not None and scales.numel() else None
    given = given or (node.get("scales") if wanted is None else None)
    if wanted is not None:
        wanted, given = _by_policy(node, [x.shape[dim] for dim in dims], wanted)
    assert given is not None, "one of scales and sizes is there in every valid graph"
    region = (
        [float(r) for r in roi.tolist()] if roi is not None and roi.numel() else [0.0] * len(dims) + [1.0] * len(dims)
    )
    found = []
    for place, dim in enumerate(dims):
        size = x.shape[dim]
        out = wanted[place] if wanted is not None else math.floor(size * given[place])
        found.append(_Axis(dim, size, out, given[place], region[place], region[place + len(dims)]))
    return found


def _by_policy(node: Node, have: Sequence[int], wanted: Sequence[int]) -> tuple[list[int], list[float]]:
    scales = [w / h for w, h in zip(wanted, have, strict=True)]
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return list(wanted), scales
    one = min(scales) if policy == "not_larger" else max(scales)
    return [math.floor(one * size + 0.5) for size in have], [one] * len(scales)


def _transform(node: Node) -> str:
    old = "asymmetric" if node.op == "Upsample" or node.opset < 11 else "half_pixel"
    return node.text("coordinate_transformation_mode", old)


def _with_interpolate(node: Node, x: Tensor, axes: Sequence[_Axis], mode: str) -> Tensor | None:
    """Torch's own operators where they mean the same: one call, and fast."""
    changed = [axis for axis in axes if axis.out != axis.size]
    if not changed:
        return _with_stated_size(x) if _transform(node) != "tf_crop_and_resize" else None
    exact = all(axis.out == axis.size * axis.scale for axis in axes)
    if x.dim() != 4 or not x.is_floating_point() or not exact or any(axis.dim < 2 for axis in changed):
        return None
    out = [next((axis.out for axis in axes if axis.dim == dim), x.shape[dim]) for dim in (2, 3)]
    how, near = _transform(node), node.text("nearest_mode", "floor" if node.opset < 11 else "round_prefer_floor")
    whole = all(float(axis.scale).is_integer() for axis in changed)
    if mode == "nearest" and whole and (how, near[:5]) in (("asymmetric", "floor"), ("half_pixel", "round")):
        return F.interpolate(x, size=out, mode="nearest")
    single = any(axis.out == 1 for axis in changed)
    if mode == "linear" and not node.flag("antialias") and not single:
        if how in ("half_pixel", "pytorch_half_pixel"):
            return F.interpolate(x, size=out, mode="bilinear", align_corners=False)
        if how == "align_corners":
            return F.interpolate(x, size=out, mode="bilinear", align_corners=True)
    return None


def _coordinates(node: Node, axis: _Axis, mode: str) -> Floats:
    """Position in the input of each output position."""
    place, how = np.arange(axis.out, dtype=np.float64), _transform(node)
    if how == "asymmetric":
        return place / axis.scale
    if how == "align_corners":
        return place * (axis.size - 1) / (axis.out - 1) if axis.out > 1 else np.zeros(1)
    if how == "pytorch_half_pixel" and axis.out == 1:
        return np.zeros(1) - 0.0
    if how == "tf_half_pixel_for_nn":
        return (place + 0.5) / axis.scale
    if how == "half_pixel_symmetric":
        adjust = axis.out / (axis.scale * axis.size)
        return axis.size / 2 * (1 - adjust) + (place + 0.5) / axis.scale - 0.5
    if how == "tf_crop_and_resize":
        span = axis.size - 1
        if axis.out > 1:
            return axis.start * span + place * (axis.end - axis.start) * span / (axis.out - 1)
        return np.full(1, 0.5 * (axis.start + axis.end) * span)
    return (place + 0.5) / axis.scale - 0.5


def _resampled(node: Node, x: Tensor, axis: _Axis, coordinates: Floats, mode: str) -> Tensor:
    if mode == "nearest":
        return x.index_select(axis.dim, torch.from_numpy(_nearest(node, coordinates).clip(0, axis.size - 1)))
    matrix = _weights(node, axis, coordinates, mode)
    taps = int((matrix != 0).sum(axis=1).max())
    assert taps, "every output position reads something"
    data = x if x.is_floating_point() else x.double()
    # As a sum of taps, not as a product with a matrix: that would hold the sizes of all other dimensions fast.
    columns = np.argsort(-np.abs(matrix), axis=1, kind="stable")[:, :taps]
    weights = np.take_along_axis(matrix, columns, axis=1)
    shape = [-1 if dim == axis.dim else 1 for dim in range(x.dim())]
    made = sum(
        data.index_select(axis.dim, torch.from_numpy(columns[:, tap].copy()))
        * torch.from_numpy(weights[:, tap].copy()).to(data.dtype).reshape(shape)
        for tap in range(taps)
    )
    assert isinstance(made, Tensor)
    return made if x.is_floating_point() else made.round().to(x.dtype)


def _nearest(node: Node, coordinates: Floats) -> npt.NDArray[np.int64]:
    how = node.text("nearest_mode", "floor" if node.op == "Upsample" or node.opset < 11 else "round_prefer_floor")
    if how == "floor":
        return np.floor(coordinates).astype(np.int64)
    if how == "ceil":
        return np.ceil(coordinates).astype(np.int64)
    if how == "round_prefer_ceil":
        return np.floor(coordinates + 0.5).astype(np.int64)
    return np.ceil(coordinates - 0.5).astype(np.int64)


def _weights(node: Node, axis: _Axis, coordinates: Floats, mode: str) -> Floats:
    """[out, in]: the share of each input position in each output position."""
    anti = node.flag("antialias") and axis.scale < 1
    stretch = axis.scale if anti else 1.0
    reach = (1.0 if mode == "linear" else 2.0) / stretch
    a = node.real("cubic_coeff_a", -0.75)
    matrix = np.zeros((axis.out, axis.size))
    for row, centre in enumerate(coordinates):
        taps = np.arange(math.floor(centre - reach) + 1, math.floor(centre + reach) + 1)
        distance = np.abs(taps - centre) * stretch
        shares = np.clip(1 - distance, 0, None) if mode == "linear" else _cubic(distance, a)
        inside = (taps >= 0) & (taps < axis.size)
        if (node.flag("exclude_outside") or anti) and inside.any():
            shares = np.where(inside, shares, 0)
        np.add.at(matrix[row], taps.clip(0, axis.size - 1), shares / shares.sum())
    return matrix


def _cubic(distance: Floats, a: float) -> Floats:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@operator("GridSample")
def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    mode = node.text("mode", "bilinear")
    corners = node.flag("align_corners")
    return F.grid_sample(x, grid, modes.get(mode, mode), node.text("padding_mode", "zeros"), corners)


@operator("AffineGrid")
def affine_grid(node: Node, theta: Tensor, size: Tensor) -> Tensor:
    return F.affine_grid(theta, listed(size), node.flag("align_corners"))
