"""Darknet's activation functions as torch modules (`src/activations.h` of both repositories)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from eightfold.zoo.sources.darknet.cfg import Section


class Formula(nn.Module):
    """An activation that torch has no module for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return FORMULAS[self.name](x)


def _loggy(x: Tensor) -> Tensor:
    return 2 * torch.sigmoid(x) - 1


def _ramp(x: Tensor) -> Tensor:
    return torch.relu(x) + 0.1 * x


def _selu(x: Tensor) -> Tensor:  # the constants are rounded to four digits there
    return 1.0507 * torch.where(x >= 0, x, 1.6732 * torch.expm1(x))


def _plse(x: Tensor) -> Tensor:
    inner = 0.125 * x + 0.5
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, inner))


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def _stair(x: Tensor) -> Tensor:
    floor, half = torch.floor(x), torch.floor(x / 2)
    return torch.where(torch.remainder(floor, 2) == 0, half, x - floor + half)


def _hard_mish(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


FORMULAS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "loggy": _loggy,
    "ramp": _ramp,
    "selu": _selu,
    "plse": _plse,
    "lhtan": _lhtan,
    "stair": _stair,
    "hard_mish": _hard_mish,
}
MODULES: Mapping[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "revleaky": lambda: nn.LeakyReLU(0.1),
    "relie": lambda: nn.LeakyReLU(0.01),
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "gelu": lambda: nn.GELU("tanh"),
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtan": nn.Hardtanh,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "h_swish": nn.Hardswish,
    "h_sigmoid": nn.Hardsigmoid,
}
NAMES = tuple(sorted({*FORMULAS, *MODULES}))


def activation_of(section: Section, default: str) -> nn.Module:
    """The module for the section's `activation`.

    Raises:
        ModelError: an activation that is none of Darknet's, which Darknet itself would silently run as ReLU.
    """
    name = section.text("activation", default)
    if name in MODULES:
        return MODULES[name]()
    if name in FORMULAS:
        return Formula(name)
    raise section.error(f"unknown activation {name!r}", key="activation", allowed=", ".join(NAMES))
