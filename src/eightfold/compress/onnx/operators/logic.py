"""Comparisons and logic."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor, "Equal": torch.eq,
    "Greater": torch.gt, "Less": torch.lt, "GreaterOrEqual": torch.ge, "LessOrEqual": torch.le,
    "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip


def _binary(function: Callable[[Tensor, Tensor], Tensor], node: Node, a: Tensor, b: Tensor) -> Tensor:
    return function(a, b)


for _name, _function in _BINARY.items():
    operator(_name)(functools.partial(_binary, _function))


@operator("Not")
def negate(node: Node, x: Tensor) -> Tensor:
    return torch.logical_not(x)


@operator("BitwiseNot")
def flip_bits(node: Node, x: Tensor) -> Tensor:
    return torch.bitwise_not(x)


@operator("Where")
def choose(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)
