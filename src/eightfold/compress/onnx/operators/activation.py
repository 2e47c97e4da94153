"""Activation functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator


@operator("Relu")
def relu(node: Node, x: Tensor) -> Tensor:
    return torch.relu(x)


@operator("Sigmoid")
def sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@operator("Tanh")
def tanh(node: Node, x: Tensor) -> Tensor:
    return torch.tanh(x)


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.real("alpha", 0.01))


@operator("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.real("alpha", 1.0))


@operator("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.real("alpha", 1.67326319217681884765625), node.real("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)


@operator("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node.real("alpha", 1.0))


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


@operator("HardSwish")
def hard_swish(node: Node, x: Tensor) -> Tensor:
    return F.hardswish(x)


@operator("Swish")
def swish(node: Node, x: Tensor) -> Tensor:
    alpha = node.real("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("Softplus")
def softplus(node: Node, x: Tensor) -> Tensor:
    return F.softplus(x)


@operator("Softsign")
def softsign(node: Node, x: Tensor) -> Tensor:
    return x / (1 + torch.abs(x))


@operator("Mish")
def mish(node: Node, x: Tensor) -> Tensor:
    return F.mish(x)


@operator("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.text("approximate", "none"))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return F.threshold(x, node.real("alpha", 1.0), 0.0)


@operator("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    bias, limit = node.real("bias", 0.0), node.real("lambd", 0.5)
    moved = torch.where(x > limit, x - bias, torch.where(x < -limit, x + bias, torch.zeros_like(x)))
    return moved.to(x.dtype)


@operator("PRelu")
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * slope)


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    """Before opset 13 over all dimensions from the axis on."""
    if node.opset >= 13:
        return _over(node.op, x, node.integer("axis", -1))
    axis = node.integer("axis", 1) % max(x.dim(), 1)
    if axis == x.dim() - 1:
        return _over(node.op, x, axis)
    return _over(node.op, x.flatten(axis), axis).reshape(x.shape)


def _over(op: str, x: Tensor, axis: int) -> Tensor:
    if op == "Hardmax":
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)
    return torch.softmax(x, axis) if op == "Softmax" else torch.log_softmax(x, axis)
