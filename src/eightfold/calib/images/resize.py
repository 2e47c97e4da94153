"""Resampling, defined once: every interpolation is a small weighted sum of input pixels along each axis.

The output pixel i of an axis that goes from `n` to `m` pixels reads the input at the half-pixel centre
`x = (i + 0.5) * n / m - 0.5`; what lies outside the image repeats its border pixel. With `f` the fraction of `x`:

    bilinear   2 taps, 1 - f and f                                         (OpenCV INTER_LINEAR)
    bicubic    4 taps, Keys' kernel with a = -0.75                         (OpenCV INTER_CUBIC)
    area       the mean over [i * n / m, (i + 1) * n / m), border pixels by their overlap (OpenCV INTER_AREA);
               where either axis grows, both are bilinear
    antialias  bilinear and bicubic (a = -0.5) kernels stretched by n / m when an axis shrinks, their taps cut at the
               border and normalized                                       (Pillow, torchvision)

The horizontal sums are taken first, nothing is rounded in between, and the result is rounded once:
`floor(v + 0.5)`, clipped to 0..255 (16 bits: 0..65535). Any implementation in double precision that follows these lines
gives the same pixels; OpenCV's fixed-point one differs by at most one level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.unsignedinteger[Any]]  # uint8 or uint16
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Taps:
    """The weighted sum of every output pixel of one axis: `index` and `weight` are both (output pixels, taps)."""

    index: npt.NDArray[np.intp]
    weight: Floats


def resize(image: Pixels, height: int, width: int, *, interpolation: str, antialias: bool = False) -> Pixels:
    """Resize an image in float64 and round once. The reference that the fast paths are tested against.

    Args:
        image: (H, W, C) uint8 or uint16.
        height, width: the size wanted, in pixels.
        interpolation: "bilinear", "bicubic" or "area", as defined at the head of this file.
        antialias: widen the kernel when an axis shrinks.

    Returns:
        (height, width, C) of the same type.
    """
    resized = resize_float(image.astype(np.float64), height, width, interpolation=interpolation, antialias=antialias)
    whole: Pixels = np.clip(np.floor(resized + 0.5), 0, np.iinfo(image.dtype).max).astype(image.dtype)
    return whole


def resize_float(image: Floats, height: int, width: int, *, interpolation: str, antialias: bool = False) -> Floats:
    """`resize` without the rounding: (H, W, C) float64 to (height, width, C) float64."""
    old_height, old_width = image.shape[:2]
    kind = kernel_name(interpolation, antialias, grows=height > old_height or width > old_width)
    rows = _weighted(image.transpose(1, 0, 2), axis_taps(old_width, width, kind))
    return _weighted(rows.transpose(1, 0, 2), axis_taps(old_height, height, kind))


def kernel_name(interpolation: str, antialias: bool, *, grows: bool) -> str:
    """Name of the kernel below that carries out `interpolation`."""
    if interpolation == "area":
        return "bilinear" if grows else "area"
    return f"{interpolation}-antialias" if antialias else interpolation


@lru_cache(maxsize=64)
def axis_taps(old: int, new: int, kind: str) -> Taps:
    """The taps that take an axis from `old` to `new` pixels."""
    if kind == "area":
        return _area_taps(old, new)
    if kind.endswith("-antialias"):
        return _stretched_taps(old, new, _triangle if kind.startswith("bilinear") else _keys_half)
    return _clamped_taps(old, new, _triangle if kind == "bilinear" else _keys_three_quarters)


def _weighted(image: Floats, taps: Taps) -> Floats:
    """Sum over the first axis, one tap at a time, so that memory stays at the size of the output."""
    result = np.zeros((taps.index.shape[0], *image.shape[1:]))
    for index, weight in zip(taps.index.T, taps.weight.T, strict=True):
        result += image[index] * weight[:, None, None]
    return result


@dataclass(frozen=True)
class _Kernel:
    radius: int
    at: Callable[[Floats], Floats]


def _keys(a: float) -> _Kernel:
    """Keys (1981), "Cubic Convolution Interpolation for Digital Image Processing"."""

    def at(x: Floats) -> Floats:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    return _Kernel(2, at)


_triangle = _Kernel(1, lambda x: np.maximum(0.0, 1 - np.abs(x)))
_keys_half = _keys(-0.5)
_keys_three_quarters = _keys(-0.75)


def _clamped_taps(old: int, new: int, kernel: _Kernel) -> Taps:
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    index = np.floor(centre).astype(np.intp)[:, None] + np.arange(1 - kernel.radius, kernel.radius + 1)
    return Taps(np.clip(index, 0, old - 1), kernel.at(centre[:, None] - index))


def _stretched_taps(old: int, new: int, kernel: _Kernel) -> Taps:
    stretch = max(old / new, 1.0)
    support = kernel.radius * stretch
    centre = (np.arange(new) + 0.5) * old / new
    first = np.maximum((centre - support + 0.5).astype(np.intp), 0)
    last = np.minimum((centre + support + 0.5).astype(np.intp), old)
    index = first[:, None] + np.arange((last - first).max())
    weight = np.where(index < last[:, None], kernel.at((index + 0.5 - centre[:, None]) / stretch), 0.0)
    return Taps(np.minimum(index, old - 1), weight / weight.sum(axis=1, keepdims=True))


def _area_taps(old: int, new: int) -> Taps:
    low, high = np.arange(new) * old / new, np.arange(1, new + 1) * old / new
    first = np.floor(low).astype(np.intp)
    index = first[:, None] + np.arange(int(np.ceil(high - first).max()))
    weight = np.clip(np.minimum(index + 1, high[:, None]) - np.maximum(index, low[:, None]), 0, None)
    return Taps(np.minimum(index, old - 1), weight / weight.sum(axis=1, keepdims=True))
