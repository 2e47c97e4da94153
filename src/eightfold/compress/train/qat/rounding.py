"""Fake quantization: values on an integer grid, with a gradient that passes straight through the rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Integers:
    """The integers of a grid, from `low` to `high`.

    >>> Integers.weights(8), Integers.unsigned(4)
    (Integers(low=-127, high=127), Integers(low=0, high=15))
    """

    low: int
    high: int

    @staticmethod
    def weights(bits: int) -> Integers:
        """Symmetric signed integers, without the most negative one."""
        most = 2 ** (bits - 1) - 1
        return Integers(-most, most)

    @staticmethod
    def signed(bits: int) -> Integers:
        """Two's complement."""
        return Integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    @staticmethod
    def unsigned(bits: int) -> Integers:
        """From zero on."""
        return Integers(0, 2**bits - 1)


def straight_round(x: Tensor) -> Tensor:
    """round(x), half to even as ONNX has it, whose gradient is that of x (Bengio et al. 2013, arXiv:1308.3432)."""
    return x + (torch.round(x) - x).detach()


def fake_quantize(x: Tensor, scale: Tensor, zero: Tensor, grid: Integers) -> Tensor:
    """(clamp(round(x / scale) + zero) - zero) * scale.

    The gradient in x is that of the clamp. That in the scale is LSQ's (Esser et al. 2020, arXiv:1902.08153, equation
    3): round(x / scale) - x / scale inside the grid, the nearest end of it outside.
    """
    real, low, high = x / scale, grid.low - zero, grid.high - zero
    # Not torch.clamp, which halves the gradient at its bounds: there lies the largest weight of each channel.
    inside = torch.where(real < low, low, torch.where(real > high, high, real))
    return straight_round(inside) * scale


def softened(scale: Tensor, count: int, grid: Integers) -> Tensor:
    """The scale, with a gradient that is divided by sqrt(count * largest integer): LSQ, section 2.2."""
    factor = (count * max(grid.high, 1)) ** -0.5
    softer: Tensor = scale * factor + (scale * (1 - factor)).detach()
    return softer
