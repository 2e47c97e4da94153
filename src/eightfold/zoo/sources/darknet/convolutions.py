"""Layers with weights: convolutional, depthwise, connected, local, se.

`tensors()` gives each layer's values in the order of `.weights` files (`load_weights_upto` in Darknet's parser.c).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eightfold.zoo.sources.darknet.activations import activation_of
from eightfold.zoo.sources.darknet.built import Before, Built, DarknetLayer, in_sequence
from eightfold.zoo.sources.darknet.cfg import Section

# Darknet's `normalize_cpu` (2018) divides by sqrt(variance) + 1e-6.
ADDED_TO_DEVIATION = 1e-6


class DarknetNorm(nn.BatchNorm2d):
    """Batch norm that divides by sqrt(variance) + 1e-6, as Darknet on a CPU; in training, torch's with `eps`.

    `eps` is 1e-12, the value with which torch's formula is closest: equal at variance 0, and within
    1e-6 / sqrt(variance) of it elsewhere.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=ADDED_TO_DEVIATION**2, momentum=0.01)

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            return super().forward(input)
        variance = (self.running_var.sqrt() + ADDED_TO_DEVIATION).square()
        return F.batch_norm(input, self.running_mean, variance, self.weight, self.bias, False, 0.0, 0.0)


def make_norm(channels: int, epsilon: float | None) -> nn.BatchNorm2d:
    """Darknet's formula, or torch's sqrt(variance + epsilon), which AlexeyAB's fork computes with 1e-5."""
    if epsilon is None:
        return DarknetNorm(channels)
    return nn.BatchNorm2d(channels, eps=epsilon, momentum=0.01)


class Convolution(DarknetLayer):
    """A convolution, batch norm or a bias, and an activation.

    In files: beta or bias, then the norm's scale, mean and variance, then the weight.
    """

    def __init__(self, operator: nn.Conv2d, norm: nn.BatchNorm2d | None, activation: nn.Module) -> None:
        super().__init__()
        self.operator = operator
        self.norm: nn.BatchNorm2d | None = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.operator(x)
        if self.norm is not None:
            y = self.norm(y)
        result: Tensor = self.activation(y)
        return result

    def tensors(self) -> tuple[Tensor, ...]:
        if self.norm is None:
            return tuple(tensor for tensor in (self.operator.bias, self.operator.weight) if tensor is not None)
        statistics = [tensor for tensor in (self.norm.running_mean, self.norm.running_var) if tensor is not None]
        return (self.norm.bias, self.norm.weight, *statistics, self.operator.weight)


class Connected(DarknetLayer):
    """A linear layer. In files: the bias, then the weight [outputs, inputs]."""

    def __init__(self, operator: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.operator, self.activation = operator, activation

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.operator(x.flatten(1)))[:, :, None, None]
        return result

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.operator.bias, self.operator.weight)


class Local(DarknetLayer):
    """A convolution with weights of its own at every position: [positions, filters, channels * size * size]."""

    def __init__(self, channels: int, filters: int, out: tuple[int, int], size: int, stride: int, pad: int) -> None:
        super().__init__()
        self.out, self.size, self.stride, self.pad = out, size, stride, pad
        positions, fan_in = out[0] * out[1], channels * size * size
        self.weight = nn.Parameter(torch.empty(positions, filters, fan_in))
        self.bias = nn.Parameter(torch.zeros(filters, *out))
        nn.init.uniform_(self.weight, -math.sqrt(2 / fan_in), math.sqrt(2 / fan_in))
        self.activation: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, self.size, stride=self.stride, padding=self.pad)
        y = torch.einsum("pfk,bkp->bfp", self.weight, columns)
        result: Tensor = self.activation(y.reshape(*y.shape[:2], *self.out) + self.bias)
        return result

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.bias, self.weight)


class SqueezeExcite(DarknetLayer):
    """`[se]` of SpursLipu's code: two matrices without bias, ReLU between them, a hard sigmoid."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * scale[:, :, None, None]

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.squeeze.weight, self.excite.weight)


def convolutional(section: Section, before: Before, epsilon: float | None) -> Built:
    """`groups` counts convolution groups; [depthwise] has one for each channel, whatever it says."""
    channels, height, width = before.previous
    filters = section.integer("filters", 1, least=1)
    groups = channels if section.name == "depthwise" else section.integer("groups", 1, least=1)
    if channels % groups or filters % groups:
        raise section.error(
            f"{channels} channels to {filters} filters in {groups} groups",
            key="groups",
            allowed="groups that divide both",
        )
    size = section.integer("size", 1, least=1)
    stride = _strides(section)
    dilation = section.integer("dilation", 1, least=1) if size > 1 else 1
    pad = _padding(section, size)
    operator = nn.Conv2d(
        channels,
        filters,
        size,
        stride=stride,
        padding=pad * dilation,
        dilation=dilation,
        groups=groups,
        bias=not section.integer("batch_normalize", 0),
    )
    reach = dilation * (size - 1) + 1
    high = (height + 2 * pad * dilation - reach) // stride[0] + 1
    wide = (width + 2 * pad * dilation - reach) // stride[1] + 1
    return in_sequence(section, before, _normed(section, operator, epsilon), (filters, high, wide))


def connected(section: Section, before: Before, epsilon: float | None) -> Built:
    if section.integer("batch_normalize", 0):
        raise section.error("[connected] with batch_normalize", key="batch_normalize", allowed="batch_normalize=0")
    outputs = section.integer("output", 1, least=1)
    operator = nn.Linear(math.prod(before.previous), outputs)
    module = Connected(operator, activation_of(section, "logistic"))
    return in_sequence(section, before, module, (outputs, 1, 1))


def local(section: Section, before: Before, epsilon: float | None) -> Built:
    channels, height, width = before.previous
    filters, size = section.integer("filters", 1, least=1), section.integer("size", 1, least=1)
    stride, pad = section.integer("stride", 1, least=1), section.integer("pad", 0)
    lost = 1 if pad else size
    shape = (filters, (height - lost) // stride + 1, (width - lost) // stride + 1)
    if min(shape) < 1:
        return in_sequence(section, before, DarknetLayer(), shape)
    module = Local(channels, filters, shape[1:], size, stride, pad)
    module.activation = activation_of(section, "logistic")
    return in_sequence(section, before, module, shape)


def squeeze_excite(section: Section, before: Before, epsilon: float | None) -> Built:
    channels = before.previous[0]
    reduction = section.integer("reduction", 4, least=1)
    if section.integer("filters", channels) != channels or channels < reduction:
        raise section.error(
            f"[se] with filters={section.text('filters', str(channels))}, reduction={reduction}",
            key="filters",
            allowed=f"filters={channels}, the channels before it, and a reduction of at most that",
        )
    return in_sequence(section, before, SqueezeExcite(channels, reduction), before.previous)


def _strides(section: Section) -> tuple[int, int]:
    """(vertical, horizontal)."""
    stride = section.integer("stride", 1, least=1)
    return section.integer("stride_y", stride, least=1), section.integer("stride_x", stride, least=1)


def _padding(section: Section, size: int) -> int:
    return size // 2 if section.integer("pad", 0) else section.integer("padding", 0)


def _normed(section: Section, operator: nn.Conv2d, epsilon: float | None) -> Convolution:
    nn.init.normal_(operator.weight, std=math.sqrt(2 / (operator.weight[0].numel())))
    if operator.bias is not None:
        nn.init.zeros_(operator.bias)
    norm = make_norm(operator.out_channels, epsilon) if section.integer("batch_normalize", 0) else None
    return Convolution(operator, norm, activation_of(section, "logistic"))
