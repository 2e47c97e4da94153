"""Tensors made from shapes and numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, dtype_of, listed, operator


@operator("Shape")
def shape(node: Node, x: Tensor) -> Tensor:
    sizes = list(x.shape)[node.integer("start") : node.get("end")]
    return torch.from_numpy(np.array(sizes, dtype=np.int64))


@operator("Size")
def size(node: Node, x: Tensor) -> Tensor:
    return torch.from_numpy(np.array(x.numel(), dtype=np.int64))


@operator("ConstantOfShape")
def constant_of_shape(node: Node, sizes: Tensor) -> Tensor:
    value = node.get("value")
    if value is None:
        return torch.zeros(listed(sizes))
    return torch.full(listed(sizes), value.reshape(-1)[0].item(), dtype=value.dtype)


@operator("Range")
def arange(node: Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


@operator("EyeLike")
def eye_like(node: Node, x: Tensor) -> Tensor:
    kind = dtype_of(node, node.integer("dtype")) if "dtype" in node.attributes else x.dtype
    rows, columns = x.shape
    return (torch.arange(rows)[:, None] + node.integer("k") == torch.arange(columns)).to(kind)


@operator("RandomNormalLike", "RandomUniformLike")
def random_like(node: Node, x: Tensor) -> Tensor:
    kind = dtype_of(node, node.integer("dtype")) if "dtype" in node.attributes else x.dtype
    return _noise(node, list(x.shape), kind)


@operator("RandomNormal", "RandomUniform")
def random(node: Node) -> Tensor:
    return _noise(node, node.integers("shape"), dtype_of(node, node.integer("dtype", 1)))


def _noise(node: Node, sizes: list[int], kind: torch.dtype) -> Tensor:
    if node.op.startswith("RandomNormal"):
        return torch.randn(sizes, dtype=kind) * node.real("scale", 1.0) + node.real("mean")
    low, high = node.real("low"), node.real("high", 1.0)
    return torch.rand(sizes, dtype=kind) * (high - low) + low
