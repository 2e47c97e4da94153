"""Elementwise arithmetic with broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, number_or_tensor, operator


def _register_unary() -> None:
    table: dict[str, Callable[[Tensor], Tensor]] = {
        "Neg": torch.neg, "Abs": torch.abs, "Sign": torch.sign, "Floor": torch.floor, "Ceil": torch.ceil,
        "Round": torch.round, "Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal, "Exp": torch.exp, "Log": torch.log,
        "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos,
        "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh,
        "Atanh": torch.atanh, "Erf": torch.erf, "IsNaN": torch.isnan,
    }  # fmt: skip
    for name, function in table.items():
        operator(name)(functools.partial(_unary, function))


def _unary(function: Callable[[Tensor], Tensor], node: Node, x: Tensor) -> Tensor:
    return function(x) if x.is_floating_point() or function not in (torch.floor, torch.ceil, torch.round) else x


_register_unary()


@operator("Add")
def add(node: Node, a: Tensor, b: Tensor) -> Tensor:
    left, right = operands(a, b)
    return torch.add(left, right)


@operator("Sub")
def subtract(node: Node, a: Tensor, b: Tensor) -> Tensor:
    left, right = operands(a, b)
    return torch.sub(left, right) if isinstance(left, Tensor) else torch.rsub(b, left)


@operator("Mul")
def multiply(node: Node, a: Tensor, b: Tensor) -> Tensor:
    left, right = operands(a, b)
    return torch.mul(left, right)


@operator("Div")
def divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Whole numbers are cut towards zero."""
    if not a.is_floating_point():
        return torch.div(a, b, rounding_mode="trunc")
    left, right = operands(a, b)
    return torch.div(left, right) if isinstance(left, Tensor) else torch.reciprocal(b) * left


@operator("Pow")
def power(node: Node, a: Tensor, b: Tensor) -> Tensor:
    result: Tensor = torch.pow(a, number_or_tensor(b))
    return result.to(a.dtype)


@operator("Mod")
def modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.flag("fmod") else torch.remainder(a, b)


@operator("Sum")
def total(node: Node, *values: Tensor) -> Tensor:
    return functools.reduce(torch.add, values)


@operator("Mean")
def mean(node: Node, *values: Tensor) -> Tensor:
    return functools.reduce(torch.add, values) / len(values)


@operator("Max")
def largest(node: Node, *values: Tensor) -> Tensor:
    return functools.reduce(_maximum, values)


@operator("Min")
def smallest(node: Node, *values: Tensor) -> Tensor:
    return functools.reduce(_minimum, values)


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    left, right = operands(a, b)
    if isinstance(right, Tensor) and isinstance(left, Tensor):
        return torch.maximum(left, right)
    return torch.clamp(left, min=right) if isinstance(left, Tensor) else torch.clamp(b, min=left)


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    left, right = operands(a, b)
    if isinstance(right, Tensor) and isinstance(left, Tensor):
        return torch.minimum(left, right)
    return torch.clamp(left, max=right) if isinstance(left, Tensor) else torch.clamp(b, max=left)


@operator("Clip")
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least = node.get("min") if low is None else low.item()
    most = node.get("max") if high is None else high.item()
    if least is None and most is None:
        return x
    return torch.clamp(x, least, most)


@operator("IsInf")
def is_infinite(node: Node, x: Tensor) -> Tensor:
    found = torch.isinf(x)
    if not node.flag("detect_negative", True):
        found = found & (x > 0)
    return found if node.flag("detect_positive", True) else found & (x < 0)


@operator("BitShift")
def shift(node: Node, a: Tensor, b: Tensor) -> Tensor:
    wide = (
        (a.to(torch.int64) << b.to(torch.int64))
        if node.text("direction") == "LEFT"
        else a.to(torch.int64) >> b.to(torch.int64)
    )
    return wide.to(a.dtype)


def operands(a: Tensor, b: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """At least one stays a tensor; a single number beside it becomes one of Python's."""
    if b.dim() == 0 and a.dim() > 0 and a.dtype == b.dtype:
        return a, b.item()
    if a.dim() == 0 and b.dim() > 0 and a.dtype == b.dtype:
        return a.item(), b
    return a, b
