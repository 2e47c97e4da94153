"""Skimming: run a model for its structure, not for its numbers.

Heavy products (convolutions, matrix products) are replaced by cheap noise of the right shape, so that tracing a
detector at full resolution costs what its small operators cost. Shapes are still worked out, and sizes that do not fit
still raise, by the operators' own meta functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# Multiply-accumulates above which the real product is not computed; below it, meta functions cost more than they save.
HEAVY_MACS = 2_000_000


def run_or_skim(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an ATen call, or noise in its shape when it is a heavy product."""
    count = _MACS.get(func.overloadpacket.__name__)
    if count is not None and count(*args) > HEAVY_MACS:
        return _noise(func, args, kwargs)
    return func(*args, **kwargs)


def _convolution(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> int:
    stride, transposed = rest[1], rest[4]
    positions = x.numel() // max(x.shape[-weight.dim() + 1] if x.dim() >= weight.dim() else x.shape[0], 1)
    shrink = 1 if transposed else prod(stride)
    return weight.numel() * positions // shrink


def _product(x: torch.Tensor, weight: torch.Tensor) -> int:
    return x.numel() * weight.shape[-1]


_MACS: dict[str, Callable[..., int]] = {
    "convolution": _convolution,
    "mm": _product,
    "bmm": _product,
    "addmm": lambda bias, x, weight: _product(x, weight),
}


def _noise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    like = next(arg for arg in args if isinstance(arg, torch.Tensor))
    shape = func(*tree_map(_meta, args), **tree_map(_meta, kwargs))
    source = _noise_block(like.dtype, like.device)
    blocks = -(-shape.numel() // source.numel())
    return source.repeat(max(blocks, 1))[: shape.numel()].view(shape.shape)


@functools.cache
def _noise_block(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """65,537 standard normal values; the odd length keeps rows of a map from being equal."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(65_537, generator=generator).to(device=device, dtype=dtype)


def _meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value


class Skim(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base class has no annotations
    """Inside `with Skim():`, heavy products give noise."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run_or_skim(func, args, kwargs or {})
