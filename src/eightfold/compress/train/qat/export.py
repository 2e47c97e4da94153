"""Writes a trained rounding network as a Q/DQ graph, and as a file of integers with shifts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eightfold.compress.train.qat.joins import joins_of
from eightfold.compress.train.qat.layers import QuantizedLayer, quantized_layers
from eightfold.compress.train.qat.quantizers import ActivationQuantizer
from eightfold.errors import ModelError
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.extras import require
from eightfold.files import PathLike, atomic_directory


class _DeployedInput(nn.Module):
    """The rounding of an activation as an operator that exporters turn into a Q/DQ pair."""

    def __init__(self, name: str, source: ActivationQuantizer) -> None:
        super().__init__()
        if not bool(source.seen):
            raise ModelError(f"{name} has no range", remedy="train some steps, or prepare with ranges")
        step, zero = (value.detach() for value in source.scale_and_zero())
        self.form, self.step, self.zero = source.form, float(step), int(zero)

    def forward(self, x: Tensor) -> Tensor:
        """As the source in evaluation mode."""
        grid = self.form.grid
        if self.form.bits < 8:
            x = torch.clamp(x, (grid.low - self.zero) * self.step, (grid.high - self.zero) * self.step)
        ends = (-128, 127) if self.form.signed else (0, 255)
        return torch.fake_quantize_per_tensor_affine(x, self.step, self.zero, *ends)


class _Deployed(nn.Module):
    """A layer whose rounding is written as operators that exporters turn into Q/DQ pairs."""

    weight: Tensor
    scale: Tensor
    zeros: Tensor

    def __init__(self, name: str, source: QuantizedLayer) -> None:
        super().__init__()
        self.input = _DeployedInput(f"the input of the layer {name!r}", source.input_quantizer)
        weight, bias, scale = source.deployed()
        self.source, self.bias = copy.copy(source), bias
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """As the source in evaluation mode."""
        x = self.input(x)
        weight = torch.fake_quantize_per_channel_affine(self.weight, self.scale, self.zeros, 0, -128, 127)
        return self.source.apply_layer(x, weight, self.bias)


def deployed(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that computes the same with torch's own fake quantization.

    Raises:
        ModelError: not prepared, or a layer that never saw its input.
    """
    if not quantized_layers(model):
        raise ModelError("the model has no layers that round", remedy="call prepare_qat first")
    twin = copy.deepcopy(model).eval()
    for name, layer in quantized_layers(twin).items():
        parent, _, own = name.rpartition(".")
        setattr(twin.get_submodule(parent), own, _Deployed(name, layer))
    joins = joins_of(twin)
    if joins is not None:
        for name, quantizer in joins.quantizers.items():
            if isinstance(quantizer, ActivationQuantizer):
                joins.quantizers[name] = _DeployedInput(f"the join {name}", quantizer)
    return twin


def export_qat(
    model: nn.Module, path: PathLike, *, batch: int, image_size: int | tuple[int, int], **options: Any
) -> Path:
    """Write the Q/DQ graph of a network that `prepare_qat` changed: int8 weights per channel, a pair in front of each
    layer's input.

    Args:
        options: further ones of `export_onnx`, such as `targets`.

    Returns:
        `path`.
    """
    return export_onnx(deployed(model), path, batch=batch, image_size=image_size, **options)


def save_integers(model: nn.Module, directory: PathLike) -> Path:
    """Write a power-of-two network as integers: `weights.safetensors` (int8 NAME.weight, int32 NAME.bias) and
    `shifts.json` with, for each layer, -log2 of the scales of input, weight and bias, and how many values a shift
    would overflow; for each addition and concatenation ("add0", "cat1" ...) that of its operands and its result.

    Raises:
        ModelError: scales that are no powers of two.
    """
    save_file = require("safetensors.torch", "write weights").save_file
    tensors: dict[str, Tensor] = {}
    shifts: dict[str, dict[str, int]] = {}
    for name, layer in quantized_layers(deployed_source(model)).items():
        weight, bias, scales = layer.deployed()
        inputs = layer.input_quantizer.scale_and_zero()[0].detach()
        weight_shift, input_shift = _shift(scales[0], name), _shift(inputs, name)
        tensors[f"{name}.weight"] = torch.round(weight / scales[0]).to(torch.int8)
        shifts[name] = {"input": input_shift, "weight": weight_shift, "bias": input_shift + weight_shift}
        if bias is not None:
            integers = torch.round(bias.double() / float(scales[0] * inputs))
            tensors[f"{name}.bias"] = integers.clamp(-(2**31), 2**31 - 1).to(torch.int32)
            shifts[name]["bias_overflows"] = int((integers.abs() >= 2**31).sum())
    joins = joins_of(model)
    for name, quantizer in () if joins is None else joins.quantizers.items():
        if isinstance(quantizer, ActivationQuantizer):
            shifts[name] = {"operands": _shift(quantizer.scale_and_zero()[0].detach(), name)}
    with atomic_directory(Path(directory), replaces=("shifts.json",)) as folder:
        save_file(tensors, str(folder / "weights.safetensors"))
        (folder / "shifts.json").write_text(json.dumps(shifts, indent=1) + "\n")
    return Path(directory)


def deployed_source(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode."""
    return copy.deepcopy(model).eval()


def _shift(scale: Tensor, name: str) -> int:
    exponent = float(torch.log2(scale.double()))
    if abs(exponent - round(exponent)) > 1e-6:
        raise ModelError(f"the scale of {name!r} is no power of two", allowed="networks prepared with the scheme pow2")
    return -round(exponent)
