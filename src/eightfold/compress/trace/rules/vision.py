"""Pooling, resampling, pixel shuffles, patches and the operators of torchvision."""

from __future__ import annotations

import numpy as np

from eightfold.compress.trace.labels import axes_of, set_axes
from eightfold.compress.trace.rules.base import Call, note_dimensions, positive, rule


@rule(
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "grid_sampler_2d", "grid_sampler",
    "affine_grid_generator",
)  # fmt: skip
def resample(call: Call) -> None:
    """Positions change, channels pass."""
    x, out = call.args[0], call.out
    spatial = [dim for dim in axes_of(x) if dim >= x.dim() - _spatial(call.name)]
    call.freeze(x, f"{call.name} along channels", spatial)
    for tensor in call.tensors[1:]:
        call.freeze(tensor, call.name)
    axes = {dim: labels for dim, labels in axes_of(x).items() if dim not in spatial}
    for result in call.outs:
        if result.dim() == out.dim():
            set_axes(result, axes)
    note_dimensions(call)


def _spatial(name: str) -> int:
    return 1 if "1d" in name else 3 if "3d" in name else 2


@rule("max_unpool2d", "max_unpool3d")
def unpool(call: Call) -> None:
    """Values and the positions they go to have the same channels."""
    x, places = call.args[:2]
    axes = {d: labels for d, labels in axes_of(x).items() if d < x.dim() - _spatial(call.name)}
    for dim, labels in axes.items():
        call.join(labels, axes_of(places).get(dim))
    set_axes(call.out, axes)


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def fourier(call: Call) -> None:
    """A transform mixes the dimensions it runs over."""
    x = call.args[0]
    mixed = {positive(dim, x) for dim in call.args[1]}
    call.freeze(x, "Fourier transform over channels", mixed)
    set_axes(call.out, {dim: labels for dim, labels in axes_of(x).items() if dim not in mixed})


@rule("view_as_complex")
def complex_from_pairs(call: Call) -> None:
    """Complex numbers from pairs in the last dimension."""
    x = call.args[0]
    call.freeze(x, "real and imaginary part", [x.dim() - 1])
    set_axes(call.out, {dim: labels for dim, labels in axes_of(x).items() if dim < x.dim() - 1})


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> None:
    """[C r^2, H, W] -> [C, H r, W r]: the r^2 channels of a pixel block go together."""
    x, factor = call.args[:2]
    axes = dict(axes_of(x))
    if x.dim() - 3 in axes:
        table = axes[x.dim() - 3].reshape(-1, factor * factor)
        call.space.unite_rows(np.ascontiguousarray(table.T), call.why("pixel shuffle"))
        axes[x.dim() - 3] = table[:, 0].copy()
    set_axes(call.out, axes)


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> None:
    """Pixels of each block moved into channels."""
    x, factor = call.args[:2]
    channel = x.dim() - 3
    set_axes(call.out, {d: np.repeat(v, factor * factor) if d == channel else v for d, v in axes_of(x).items()})


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> None:
    """[groups, C / groups] transposed: the groups keep equal positions."""
    x, groups = call.args[:2]
    axes = dict(axes_of(x))
    if 1 in axes:
        table = axes[1].reshape(groups, -1)
        call.space.unite_rows(table, call.why("channel shuffle"))
        axes[1] = np.ascontiguousarray(table.T).reshape(-1)
    set_axes(call.out, axes)


@rule("unfold")
def unfold(call: Call) -> None:
    """Tensor.unfold: windows along one dimension, their positions in a new last one."""
    x = call.args[0]
    call.freeze(x, "unfold along channels", [positive(call.args[1], x)])
    set_axes(call.out, {dim: labels for dim, labels in axes_of(x).items() if dim != positive(call.args[1], x)})


@rule("im2col")
def im2col(call: Call) -> None:
    """[N, C, H, W] -> [N, C k^2, L]."""
    x, kernel = call.args[:2]
    channel = x.dim() - 3
    if channel in axes_of(x):
        set_axes(call.out, {channel: np.repeat(axes_of(x)[channel], int(np.prod(kernel)))})


@rule("col2im")
def col2im(call: Call) -> None:
    """Image patches summed back into an image."""
    x, _, kernel = call.args[:3]
    channel = x.dim() - 2
    if channel in axes_of(x):
        table = axes_of(x)[channel].reshape(-1, int(np.prod(kernel)))
        call.space.unite_rows(np.ascontiguousarray(table.T), call.why("col2im"))
        set_axes(call.out, {channel: table[:, 0].copy()})


@rule("roi_align", "roi_pool", "ps_roi_align")
def roi_align(call: Call) -> None:
    """[N, C, H, W] with boxes [K, 5] -> [K, C, h, w]."""
    x = call.args[0]
    call.freeze(call.args[1], "boxes")
    if call.name == "ps_roi_align":
        call.freeze(x, "position-sensitive pooling")
    elif 1 in axes_of(x):
        set_axes(call.out, {1: axes_of(x)[1]})
