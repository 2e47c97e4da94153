"""Matrix products."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator


@operator("MatMul")
def matmul(node: Node, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """A bias is that of an Add behind the node (see `fusion`)."""
    if b.dim() != 2 or a.dim() < 2:
        made = torch.matmul(a, b)
        return made if bias is None else made + bias
    rows = a if a.dim() == 2 else a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    bias = bias if bias is None or bias.dim() == 1 else bias.reshape(-1)
    flat = torch.mm(rows, b) if bias is None else torch.addmm(bias, rows, b)
    return flat if a.dim() == 2 else flat.view(*a.shape[:-1], b.shape[1])


@operator("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.t() if node.flag("transA") else a
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    if alpha == 1 and (
        c is None or (beta == 1 and c.numel() == c.shape[-1:].numel() == b.shape[0 if node.flag("transB") else 1])
    ):
        bias = None if c is None else c if c.dim() == 1 else c.reshape(-1)
        if node.flag("transB"):
            return F.linear(a, b, bias)
        return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)
    b = b.t() if node.flag("transB") else b
    made = alpha * torch.mm(a, b)
    return made if c is None else made + beta * c


@operator("Einsum")
def einsum(node: Node, *values: Tensor) -> Tensor:
    made: Tensor = torch.einsum(node.text("equation").replace(" ", ""), *values)
    return made


@operator("Det")
def determinant(node: Node, x: Tensor) -> Tensor:
    return torch.det(x)
