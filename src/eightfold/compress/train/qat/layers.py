"""Convolutions and linear layers that round their input and weight in the forward pass.

A batch norm behind a convolution is folded into the weight before it is rounded, with its running statistics, and its
effect on the output is undone before the batch norm itself runs on batch statistics (Krishnamoorthi 2018,
arXiv:1806.08342, section 3.2.2). In evaluation, what is computed is what is exported: one convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eightfold.compress.train.qat.quantizers import (
    ActivationQuantizer,
    Scheme,
    WeightQuantizer,
    column,
    on_product_grid,
)

TINY = 1e-12


class QuantizedLayer(nn.Module):
    """Base of both: a float layer, the quantizers of its input and weight.

    Attributes:
        layer: the convolution or linear layer; its parameters train in float.
        norm: the batch norm that takes its output, or None.
        frozen_norm: use and keep the norm's running statistics in training, too.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        norm: nn.BatchNorm2d | None,
        weight: WeightQuantizer,
        inputs: ActivationQuantizer,
        scheme: Scheme,
    ) -> None:
        super().__init__()
        self.layer, self.norm, self.weight_quantizer, self.input_quantizer = layer, norm, weight, inputs
        self.frozen_norm, self._shifts = False, scheme.shifts
        self.train(layer.training)

    def apply_layer(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's operator with another weight and bias."""
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        out: Tensor = self.layer._conv_forward(x, weight, bias)
        return out

    def folded(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Weight and bias with the norm folded in, and the factor of each channel; None without a norm."""
        layer, norm = self.layer, self.norm
        if norm is None:
            return layer.weight, layer.bias, None
        assert norm.running_mean is not None, "prepare_qat takes such norms only"
        assert norm.running_var is not None, "likewise"
        factor = torch.rsqrt(norm.running_var + norm.eps)
        factor = factor if norm.weight is None else factor * norm.weight
        mean = norm.running_mean if layer.bias is None else norm.running_mean - layer.bias
        bias = -mean * factor
        bias = bias if norm.bias is None else bias + norm.bias
        return layer.weight * column(factor, layer.weight), bias, factor

    def forward(self, x: Tensor) -> Tensor:
        """The rounded layer's output, with the norm's effect."""
        x = self.input_quantizer(x)
        weight, bias, factor = self.folded()
        rounded = self.weight_quantizer(weight)
        if self.norm is None or factor is None or not self.training or self.frozen_norm:
            return self.apply_layer(x, rounded, self._bias(bias, weight))
        safe = torch.where(factor.abs() < TINY, torch.full_like(factor, TINY), factor)
        plain = self.apply_layer(x, rounded, None) / safe.reshape(-1, 1, 1)
        normed: Tensor = self.norm(plain if self.layer.bias is None else plain + self.layer.bias.reshape(-1, 1, 1))
        return normed

    def _bias(self, bias: Tensor | None, weight: Tensor) -> Tensor | None:
        if bias is None or not self._shifts or not bool(self.input_quantizer.seen):
            return bias
        scale = self.input_quantizer.scale_and_zero()[0] * self.weight_quantizer.scale(weight)
        return on_product_grid(bias, scale)

    @torch.no_grad()
    def deployed(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Weight on its grid, bias, and the weight's scale for each output channel, [channels]."""
        weight, bias, _ = self.folded()
        scale = self.weight_quantizer.scale(weight).detach()
        scale = scale.expand(len(weight)).contiguous() if scale.numel() == 1 else scale
        bias = self._bias(bias, weight)
        return self.weight_quantizer(weight).detach(), None if bias is None else bias.detach(), scale


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """The rounded layers of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLayer)}
