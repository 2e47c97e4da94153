"""Reductions, scans and order."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, axes_from, operator

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def _extreme(function: Callable[..., Tensor]) -> Reduce:
    def reduce(x: Tensor, dims: list[int], keep: bool) -> Tensor:
        if not x.numel():
            lowest = function is torch.amax
            empty = (float("-inf") if lowest else float("inf")) if x.is_floating_point() else 0
            return torch.full_like(x.sum(dims, keepdim=keep), empty, dtype=x.dtype)
        return function(x, dims, keepdim=keep)

    return reduce


_REDUCTIONS: dict[str, Reduce] = {
    "ReduceMean": lambda x, dims, keep: x.mean(dims, keepdim=keep) if x.is_floating_point() else (
        x.double().mean(dims, keepdim=keep).trunc().to(x.dtype)),
    "ReduceSum": lambda x, dims, keep: x.sum(dims, keepdim=keep, dtype=x.dtype),
    "ReduceMax": _extreme(torch.amax),
    "ReduceMin": _extreme(torch.amin),
    "ReduceProd": _product,
    "ReduceL1": lambda x, dims, keep: x.abs().sum(dims, keepdim=keep, dtype=x.dtype),
    "ReduceL2": lambda x, dims, keep: (x * x).sum(dims, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, dims, keep: (x * x).sum(dims, keepdim=keep, dtype=x.dtype),
    "ReduceLogSum": lambda x, dims, keep: x.sum(dims, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, dims, keep: torch.logsumexp(x, dims, keepdim=keep),
}  # fmt: skip


def _reduce(function: Reduce, node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = axes_from(node, axes, x.dim())
    if not dims:
        if node.flag("noop_with_empty_axes"):
            return _of_single_values(node.op, x)
        dims = list(range(x.dim()))
    if not x.dim():
        return _of_single_values(node.op, x)
    return function(x, dims, node.flag("keepdims", True))


def _of_single_values(op: str, x: Tensor) -> Tensor:
    """A reduction over nothing still applies its function to each value."""
    if op in ("ReduceL1", "ReduceL2"):
        return x.abs()
    if op == "ReduceSumSquare":
        return x * x
    return x.log() if op == "ReduceLogSum" else x


for _name, _function in _REDUCTIONS.items():
    operator(_name)(functools.partial(_reduce, _function))


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node, x: Tensor) -> Tensor:
    axis, keep = node.integer("axis") % x.dim(), node.flag("keepdims", True)
    find = torch.argmax if node.op == "ArgMax" else torch.argmin
    if not node.flag("select_last_index"):
        return find(x, axis, keepdim=keep)
    return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)


@operator("TopK")
def top_k(node: Node, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Equal values in the order of their places, which `torch.topk` does not promise."""
    count = node.integer("k") if k is None else int(k.item())
    axis = node.integer("axis", -1) % x.dim()
    values, places = torch.sort(x, dim=axis, descending=node.flag("largest", True), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


@operator("CumSum")
def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    dim = int(axis.item()) % x.dim()
    turned = x.flip(dim) if node.flag("reverse") else x
    total = torch.cumsum(turned, dim, dtype=x.dtype)
    total = total - turned if node.flag("exclusive") else total
    return total.flip(dim) if node.flag("reverse") else total
