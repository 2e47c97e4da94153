"""Interpolation that averages over what it shrinks: antialiased, and "area". Both are linear, each axis on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array
from eightfold.export.torch.decompositions.linear import apply_along
from eightfold.export.torch.decompositions.pools import divides, mean_along, pooled

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def _triangle(x: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(x), 0))


def _cubic(x: Array) -> Array:
    """Keys, 1981, with a = -0.5."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


# Mode -> the filter and how many pixels it covers.
FILTERS: dict[str, tuple[Callable[[Array], Array], int]] = {
    "bilinear": (_triangle, 2),
    "bicubic": (_cubic, 4),
}


def interpolate(
    x: torch.Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """The rule of torch.nn.functional.interpolate."""
    have, axes = [int(length) for length in x.shape[2:]], x.dim() - 2
    scales = None if scale_factor is None else _each(scale_factor, axes)
    if scales is None:
        want = [int(length) for length in _each(size or (), axes)]
    else:
        want = [math.floor(length * scale) for length, scale in zip(have, scales, strict=False)]
    if mode == "area" and not divides(want, have):
        return pooled(x, mean_along, want)
    smooth = antialias and mode in FILTERS and not align_corners and x.is_floating_point()
    if not smooth or not len(have) == len(want) == 2 or min(*have, *want) < 1:
        return NotImplemented
    stated = (None, None) if scales is None or recompute_scale_factor else scales
    for axis, length, scale in zip((-2, -1), want, stated, strict=True):
        x = apply_along(x, axis, antialiased(int(x.shape[axis]), length, mode, scale))
    return x


def antialiased(have: int, want: int, mode: str, scale: float | None = None) -> NDArray[np.float64]:
    """Weights (want, have) of a resize whose filter grows with the pixels that it shrinks, as in Pillow."""
    curve, covers = FILTERS[mode]
    step = 1 / scale if scale else have / want
    reach = covers / 2 * max(step, 1)
    centers = step * (np.arange(want) + 0.5)
    first = np.maximum((centers - reach + 0.5).astype(np.int64), 0)[:, None]
    last = np.minimum((centers + reach + 0.5).astype(np.int64), have)[:, None]
    places = np.arange(have)
    weights = curve((places - centers[:, None] + 0.5) / max(step, 1)) * ((places >= first) & (places < last))
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _each(given: Any, axes: int) -> list[Any]:
    return list(given) if isinstance(given, Sequence) else [given] * axes
