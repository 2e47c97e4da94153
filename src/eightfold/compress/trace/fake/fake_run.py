"""Fake run: a model runs for its structure, not for its numbers.

Heavy products (convolutions, matrix products) are not computed. Their results are uncomputed tensors (see
`uncomputed`), and so are the results of cheap operators on those (see `fake_ops`). An operator that needs values sees
noise. Tracing a detector at full resolution therefore costs as much as its small operators. Shapes are computed, and
sizes that do not fit still raise in the operators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from eightfold.compress.trace.fake.fake_ops import FAKE_OPS, FakeOp
from eightfold.compress.trace.fake.tensor_tree import tensors_in
from eightfold.compress.trace.fake.uncomputed import Memory, fill, mark, memory_of
from eightfold.compress.types import Args, Kwargs

# Multiply-accumulates above which a product of known numbers is not computed; small ones may be sizes or coordinates.
HEAVY_MACS = 2_000_000


def run_or_fake(func: Any, args: Args, kwargs: Kwargs) -> Any:
    """The result of an ATen call, or an uncomputed tensor in its place."""
    operator = _operator(func)
    unread = [tensor for tensor in tensors_in((args, kwargs)) if memory_of(tensor) is not None]
    if operator.fake is not None and (unread or operator.is_heavy(args)):
        result = operator.fake(args, kwargs)
        if operator.in_place and isinstance(result, torch.Tensor):
            result = _written_over(args[0], result)
        if result is not None:
            return result
    if unread and operator.view:
        return _marked(func(*args, **kwargs), memory_of(unread[0]))
    if unread and not operator.shape_only:
        fill(unread)
    return func(*args, **kwargs)


class _Operator(NamedTuple):
    """Treatment of one ATen operator in a fake run."""

    fake: FakeOp | None
    macs: Callable[..., int] | None
    in_place: bool
    view: bool  # the result lies in the memory of an argument
    shape_only: bool  # values are not looked at: empty_like, new_zeros

    def is_heavy(self, args: Args) -> bool:
        return self.macs is not None and self.macs(*args) > HEAVY_MACS


@functools.cache
def _operator(func: Any) -> _Operator:
    name: str = func.overloadpacket.__name__
    plain = name.removesuffix("_")
    aliases = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
    return _Operator(
        fake=None if _has_out(func) else FAKE_OPS.get(plain),
        macs=_MACS.get(name),
        in_place=name != plain,
        view=name == "_unsafe_view" or any(not alias.is_write for alias in aliases),
        shape_only=name.startswith("new_") or name.endswith("_like"),
    )


def _has_out(func: Any) -> bool:
    return any(argument.is_out for argument in func._schema.arguments)


def _written_over(target: torch.Tensor, result: torch.Tensor) -> torch.Tensor | None:
    """`target` after an operator in place that would have given `result`; None where that does not fit."""
    if target.shape != result.shape:
        return None
    before, after = memory_of(target), memory_of(result)
    if before is not None and after is not None:
        before.positive = after.positive
    return target


def _marked(result: Any, memory: Memory | None) -> Any:
    for tensor in tensors_in([result]):
        if memory is not None:
            mark(tensor, memory)
    return result


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


class FakeRun(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base class has no annotations
    """Inside `with FakeRun():`, heavy products are not computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        return run_or_fake(func, args, kwargs or {})
