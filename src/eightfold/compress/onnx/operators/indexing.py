"""Operators that pick or write positions by tensors of indices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator


@operator("Gather", moves=True)
def gather(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.integer("axis") % x.dim()
    if places.dim() == 0:
        place = int(places.item())
        return x.select(axis, place if place >= 0 else place + x.shape[axis])
    flat = places.reshape(-1).to(torch.int64)
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    picked = x.index_select(axis, flat)
    if places.dim() == 1:
        return picked
    return picked.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.integer("axis") % x.dim()
    return x.gather(axis, _positive(places, x.shape[axis]))


@operator("GatherND")
def gather_nd(node: Node, x: Tensor, places: Tensor) -> Tensor:
    shared = node.integer("batch_dims")
    if not shared:
        return x[_columns(places, x.shape)]
    rows = math.prod(x.shape[:shared])
    parts = zip(x.reshape(rows, *x.shape[shared:]), places.reshape(rows, *places.shape[shared:]), strict=True)
    picked = torch.stack([part[_columns(where, part.shape)] for part, where in parts])
    return picked.reshape(*x.shape[:shared], *picked.shape[1:])


def _columns(places: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    return tuple(_positive(places[..., column], shape[column]) for column in range(places.shape[-1]))


def _positive(places: Tensor, size: int) -> Tensor:
    wide = places.to(torch.int64)
    return torch.where(wide < 0, wide + size, wide)


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    axis, how = node.integer("axis") % x.dim(), node.text("reduction", "none")
    where = _positive(places, x.shape[axis])
    if how == "none":
        return x.scatter(axis, where, updates)
    return x.scatter_reduce(axis, where, updates, _REDUCE[how])


@operator("ScatterND")
def scatter_nd(node: Node, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    how, where = node.text("reduction", "none"), _columns(places, x.shape)
    if how in ("none", "add"):
        return x.index_put(where, updates, accumulate=how == "add")
    sizes, rest = x.shape[: len(where)], math.prod(x.shape[len(where) :])
    flat = torch.zeros_like(where[0])
    for column, size in zip(where, sizes, strict=True):
        flat = flat * size + column
    rows = flat.reshape(-1, 1).expand(-1, rest)
    made = x.reshape(-1, rest).scatter_reduce(0, rows, updates.reshape(-1, rest), _REDUCE[how])
    return made.reshape(x.shape)


@operator("NonZero")
def non_zero(node: Node, x: Tensor) -> Tensor:
    return torch.nonzero(x).t()


@operator("OneHot")
def one_hot(node: Node, places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count = int(depth.reshape(-1)[0].item())
    axis = node.integer("axis", -1)
    where = places.to(torch.int64)
    where = torch.where(where < 0, where + count, where).unsqueeze(-1)
    found = where == torch.arange(count)
    made = torch.where(found, values[1], values[0])
    return made.movedim(-1, axis if axis >= 0 else axis + made.dim())


@operator("Compress")
def compress(node: Node, x: Tensor, wanted: Tensor) -> Tensor:
    places = torch.nonzero(wanted).reshape(-1)
    if "axis" not in node.attributes:
        return x.reshape(-1).index_select(0, places)
    return x.index_select(node.integer("axis") % x.dim(), places)


@operator("Trilu")
def triangle(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k.item())
    return torch.triu(x, diagonal) if node.flag("upper", True) else torch.tril(x, diagonal)


@operator("Unique")
def unique(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    dim = node.get("axis")
    data = x.reshape(-1) if dim is None else x
    axis = 0 if dim is None else int(dim) % x.dim()
    values, inverse, counts = torch.unique(data, return_inverse=True, return_counts=True, dim=axis)
    inverse = inverse.reshape(-1)
    rank = torch.full((len(counts),), len(inverse), dtype=torch.int64)
    first = rank.scatter_reduce(0, inverse, torch.arange(len(inverse)), "amin")
    if node.flag("sorted", True):
        return values, first, inverse, counts
    order = torch.argsort(first)
    return values.index_select(axis, order), first[order], torch.argsort(order)[inverse], counts[order]
