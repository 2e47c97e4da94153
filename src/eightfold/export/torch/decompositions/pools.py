"""Pools that ONNX has no operator for: to sizes that do not divide the input's, and with a divisor of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.export.torch.decompositions.linear import apply_along

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Sizes = int | Sequence[int | None]
# A tensor, a negative axis and the size wanted.
Along = Callable[["torch.Tensor", int, int], "torch.Tensor"]


def adaptive_pool(pool: Along, axes: int) -> Callable[..., torch.Tensor]:
    """The rule of adaptive_avg_pool1d, adaptive_max_pool2d, ...: `pool` goes along one axis after the other."""

    def rule(x: torch.Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
        have = [int(size) for size in x.shape[-axes:]]
        want = _each(output_size, axes, have)
        return NotImplemented if return_indices or divides(want, have) else pooled(x, pool, want)

    return rule


def pooled(x: torch.Tensor, pool: Along, sizes: Sequence[int]) -> torch.Tensor:
    """`x` with its last axes pooled to `sizes`."""
    for place, size in enumerate(sizes, start=-len(sizes)):
        if int(x.shape[place]) != size:
            x = pool(x, place, size)
    return x


def divides(want: Sequence[int], have: Sequence[int]) -> bool:
    """True if windows of one size suffice, or the sizes are invalid: torch reports that itself."""
    sizes = len(want) == len(have) and min(*want, *have) > 0
    return not sizes or all(old % new == 0 for old, new in zip(have, want, strict=True))


def mean_along(x: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """A matrix product: means are sums of weighted values."""
    first, last = _windows(int(x.shape[axis]), size)
    places = np.arange(int(x.shape[axis]))
    inside = (places >= first[:, None]) & (places < last[:, None])
    return apply_along(x, axis, inside / (last - first)[:, None])


def max_along(x: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Gathered rows of equal length: shorter windows hold their last value more than once, which changes no maximum."""
    import torch

    first, last = _windows(int(x.shape[axis]), size)
    steps = np.arange((last - first).max())
    rows = torch.tensor(np.minimum(first[:, None] + steps, last[:, None] - 1), device=x.device)
    before: list[Any] = [slice(None)] * (x.dim() + axis)
    return x[(*before, rows)].amax(axis)


def _windows(length: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Begin and end of each window, as torch chooses them."""
    places = np.arange(count)
    return places * length // count, -(-(places + 1) * length // count)


def divided_pool(axes: int) -> Callable[..., Any]:
    """The rule of avg_pool2d and avg_pool3d with `divisor_override`, which both exporters forget."""

    def rule(
        x: torch.Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        from torch.nn import functional

        if not divisor_override:
            return NotImplemented
        kernel, steps, pads = (_each(given, axes) for given in (kernel_size, stride or kernel_size, padding))
        have = [int(size) for size in x.shape[-axes:]]
        behind = [_behind(*sizes, ceil_mode) for sizes in zip(have, kernel, steps, pads, strict=True)]
        borders = [size for pair in zip(reversed(pads), reversed(behind), strict=True) for size in pair]
        pool = getattr(functional, f"avg_pool{axes}d")
        return pool(functional.pad(x, borders), kernel, steps) * (math.prod(kernel) / divisor_override)

    return rule


def _behind(length: int, kernel: int, step: int, pad: int, ceil_mode: bool) -> int:
    """Zeros behind an axis, after which every window is whole. None begins in those behind the input."""
    room = length + 2 * pad - kernel
    count = (-(-room // step) if ceil_mode else room // step) + 1
    if ceil_mode and (count - 1) * step >= length + pad:
        count -= 1
    return max((count - 1) * step + kernel - length - pad, 0)


def _each(given: Sizes, axes: int, have: Sequence[int] = ()) -> list[int]:
    """One number per axis; None is the size that is there."""
    listed = [given] * axes if isinstance(given, int) or not isinstance(given, Sequence) else list(given)
    listed = listed * axes if len(listed) == 1 else listed
    return [have[place] if size is None else int(size) for place, size in enumerate(listed)]
