"""Normalization. Statistics are those of inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator


@operator("BatchNormalization")
def batch_norm(node: Node, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.flag("training_mode"):
        raise node.refuse("training mode")
    return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, node.real("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_norm(node: Node, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.instance_norm(x, None, None, scale, shift, True, 0.0, node.real("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(node: Node, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
    axis, epsilon = node.integer("axis", -1) % x.dim(), node.real("epsilon", 1e-5)
    shape = list(x.shape[axis:])
    plain = scale.shape == torch.Size(shape) and (shift is None or shift.shape == scale.shape)
    if plain:
        made = F.layer_norm(x, shape, scale, shift, epsilon)
    else:
        made = F.layer_norm(x, shape, None, None, epsilon) * scale
        made = made if shift is None else made + shift
    if node.outputs == 1:
        return made
    dims = list(range(axis, x.dim()))
    mean = x.mean(dims, keepdim=True)
    return made, mean, (((x - mean) ** 2).mean(dims, keepdim=True) + epsilon).rsqrt()


@operator("RMSNormalization")
def rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axis = node.integer("axis", -1) % x.dim()
    dims = list(range(axis, x.dim()))
    return x * ((x**2).mean(dims, keepdim=True) + node.real("epsilon", 1e-5)).rsqrt() * scale


@operator("GroupNormalization", size_attributes={"num_groups": "num_groups"})
def group_norm(node: Node, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Until opset 20, scale and shift hold one value for each norm group."""
    groups = node.integer("num_groups", 1)
    if scale.shape[0] != x.shape[1]:
        times = x.shape[1] // groups
        scale, shift = scale.repeat_interleave(times), shift.repeat_interleave(times)
    return F.group_norm(x, groups, scale, shift, node.real("epsilon", 1e-5))


@operator("LpNormalization")
def lp_norm(node: Node, x: Tensor) -> Tensor:
    length = x.norm(p=node.real("p", 2), dim=node.integer("axis", -1), keepdim=True)
    return torch.where(length == 0, torch.zeros_like(x), x / torch.where(length == 0, torch.ones_like(length), length))


@operator("LRN")
def local_response(node: Node, x: Tensor) -> Tensor:
    size, alpha = node.integer("size", 1), node.real("alpha", 1e-4)
    return F.local_response_norm(x, size, alpha, node.real("beta", 0.75), node.real("bias", 1.0))


@operator("MeanVarianceNormalization")
def mean_variance(node: Node, x: Tensor) -> Tensor:
    axes = node.integers("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred**2).mean(axes, keepdim=True).sqrt() + 1e-9)


@operator("Dropout")
def dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    if training is not None and bool(training.item()):
        raise node.refuse("training mode")
    return x if node.outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))
