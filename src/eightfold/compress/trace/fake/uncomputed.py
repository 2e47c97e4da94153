"""Uncomputed tensors: their values were not needed, so they are not computed.

An unread tensor has shape, strides and memory like any other, but its memory has never been written. Operators that
only need its shape pass it on; before any other operator runs, `fill` writes plausible noise into it. Views of one
memory share a `Memory`, so that it is filled once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

_ATTRIBUTE = "_eightfold_unread"
# An odd number, so that the rows of a map do not repeat.
_NOISE_VALUES = 65_537


class Memory:
    """Known facts about one block of memory that has not been written."""

    __slots__ = ("positive", "written")

    def __init__(self, positive: bool) -> None:
        self.positive = positive  # values would lie in (0, 1): relu, sigmoid; else they are standard normal
        self.written = False


def memory_of(tensor: torch.Tensor) -> Memory | None:
    """The unwritten memory behind `tensor`; None when its values are there."""
    memory: Memory | None = tensor.__dict__.get(_ATTRIBUTE)
    return None if memory is None or memory.written else memory


def mark(tensor: torch.Tensor, memory: Memory) -> torch.Tensor:
    """Marks `tensor` as part of `memory`."""
    tensor.__dict__[_ATTRIBUTE] = memory
    return tensor


def fill(tensors: Iterable[torch.Tensor]) -> None:
    """Write noise where `tensors` are unread."""
    for tensor in tensors:
        memory = memory_of(tensor)
        if memory is not None:
            _write(tensor, memory.positive)
            memory.written = True


def _write(tensor: torch.Tensor, positive: bool) -> None:
    flat = tensor.new_empty(0).set_(tensor.untyped_storage())
    block = _noise(tensor.dtype, tensor.device, positive)
    whole = flat.numel() // _NOISE_VALUES
    flat[: whole * _NOISE_VALUES].view(whole, _NOISE_VALUES).copy_(block)
    flat[whole * _NOISE_VALUES :].copy_(block[: flat.numel() - whole * _NOISE_VALUES])


@functools.cache
def _noise(dtype: torch.dtype, device: torch.device, positive: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand if positive else torch.randn
    return draw(_NOISE_VALUES, generator=generator).to(device=device, dtype=dtype)
