"""Turns a float network into one that rounds as the target will: layers are replaced in place."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eightfold.calib.ranges import TensorRange
from eightfold.compress.modules.norms import running_means_behind
from eightfold.compress.train.qat.joins import FoundJoin, Joins, find_joins
from eightfold.compress.train.qat.layers import QuantizedLayer, quantized_layers
from eightfold.compress.train.qat.quantizers import ActivationForm, ActivationQuantizer, require_bits, scheme_named
from eightfold.compress.types import Args, ExampleInputs
from eightfold.errors import ModelError, UnknownNameError
from eightfold.export.targets import target_named
from eightfold.export.verify.module_runs import evaluating


@dataclass(frozen=True)
class QatOptions:
    """
    Attributes:
        scheme: "affine", "lsq", "dorefa", "pow2", or a registered one.
        weight_bits, activation_bits: 2 to 8.
        target: decides whether activations are unsigned with a zero point, or signed and symmetric.
        float_layers: names of layers (with wildcards) that stay float.
        eight_bit_layers: names of layers that keep 8 bits where the others have fewer, usually the first and the last.
    """

    scheme: str = "affine"
    weight_bits: int = 8
    activation_bits: int = 8
    target: str = "cpu-x86"
    float_layers: Sequence[str] = ()
    eight_bit_layers: Sequence[str] = ()

    def __post_init__(self) -> None:
        scheme_named(self.scheme)
        require_bits(self.weight_bits, "weights")
        require_bits(self.activation_bits, "activations")

    def form(self, bits: int, signed_input: bool) -> ActivationForm:
        """Form of a layer's input; `signed_input`: it may be negative."""
        target = target_named(self.target)
        if scheme_named(self.scheme).shifts:
            signed = target.activation == "int8" or signed_input
            return ActivationForm(bits, signed, symmetric=signed)
        return ActivationForm(bits, target.activation == "int8", target.symmetric)


@dataclass(frozen=True)
class Prepared:
    """The layers that round, those left in float with the reason, and the joins of branches that share a scale."""

    quantized: tuple[str, ...]
    kept_float: Mapping[str, str]
    joins: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line, and one for each layer left in float."""
        lines = [f"{len(self.quantized)} layers round their weights and inputs"]
        if self.joins:
            lines.append(f"{len(self.joins)} additions and concatenations round their operands with one scale each")
        return "\n".join([*lines, *(f"  float: {name} ({why})" for name, why in self.kept_float.items())])


def prepare_qat(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    ranges: Mapping[str, TensorRange] | None = None,
    options: QatOptions | None = None,
) -> Prepared:
    """Replace convolutions and linear layers, in place, by ones that round their input and weight.

    Train the model as before (optimizers must be made afterwards), then `export_qat` writes the Q/DQ graph. Under
    "pow2", additions and concatenations of maps round their operands, too, with one scale that covers the result.

    Args:
        example_inputs: what the model is called with.
        ranges: name of a layer -> range of its input, as `layer_ranges` reads them from a calibration. Layers without
            one observe the extremes of the training batches.
        options: see QatOptions.

    Raises:
        UnknownNameError: a name that no layer has, a scheme or a target.
        ModelError: no layer can be quantized, or the model is prepared already.
    """
    options = options or QatOptions()
    if quantized_layers(model):
        raise ModelError("the model is prepared for quantization already", remedy="prepare a float copy of it")
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    signs = input_signs(model, args)
    joins = find_joins(model, args) if scheme_named(options.scheme).shifts else []
    for pattern in (*options.float_layers, *options.eight_bit_layers):
        if not any(fnmatch.fnmatch(name, pattern) for name in signs):
            raise UnknownNameError.of("layer", pattern, signs)
    with evaluating(model):
        means = running_means_behind(model, args)
    kept = {name: why for name, module in model.named_modules() if (why := _obstacle(name, module, signs, options))}
    names = [name for name in signs if name not in kept]
    if not names:
        raise ModelError("no layer of the network can be quantized", allowed="nn.Conv2d and nn.Linear layers")
    for name in names:
        mean = means.get(f"{name}.weight" if name else "weight", "")
        _replace(model, name, mean.rpartition(".")[0], (ranges or {}).get(name), signs[name], options)
    if joins:
        Joins({each.name: _join_quantizer(each, ranges or {}, options) for each in joins}).attach(model)
    return Prepared(tuple(names), kept, tuple(each.name for each in joins))


def _join_quantizer(join: FoundJoin, ranges: Mapping[str, TensorRange], options: QatOptions) -> ActivationQuantizer:
    found = ranges.get(join.name)
    negative = join.negative or (found is not None and found.low < 0)
    return scheme_named(options.scheme).activation(options.form(options.activation_bits, negative), found)


def _obstacle(name: str, module: nn.Module, signs: Mapping[str, bool], options: QatOptions) -> str:
    if any(fnmatch.fnmatch(name, pattern) for pattern in options.float_layers):
        return "asked to stay float"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.Linear):
        if type(module) not in (nn.Conv2d, nn.Linear):
            return f"a {type(module).__name__}"
        if not name:
            return "the whole model; wrap it in nn.Sequential"
        return "" if name in signs else "did not run on the example"
    return ""


def input_signs(model: nn.Module, args: Args) -> dict[str, bool]:
    """Layers that run as modules, in order -> whether their input has negative values."""
    names = {id(module): name for name, module in model.named_modules()}
    found: dict[str, bool] = {}

    def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        name = names[id(module)]
        found[name] = found.get(name, False) or bool((inputs[0] < 0).any())

    layers = [module for module in model.modules() if type(module) in (nn.Conv2d, nn.Linear)]
    handles = [module.register_forward_pre_hook(see) for module in layers]
    try:
        with evaluating(model), torch.no_grad():
            model(*args)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _replace(
    model: nn.Module, name: str, norm_name: str, found: TensorRange | None, negative: bool, options: QatOptions
) -> None:
    layer: Any = model.get_submodule(name)
    norm = model.get_submodule(norm_name) if norm_name else None
    norm = norm if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats else None
    scheme, eight = scheme_named(options.scheme), any(fnmatch.fnmatch(name, p) for p in options.eight_bit_layers)
    weight_bits = 8 if eight else options.weight_bits
    bits = 8 if eight else options.activation_bits
    negative = negative or (found is not None and found.low < 0)
    device = layer.weight.device
    rounded = QuantizedLayer(
        layer,
        norm,
        nn.Identity(),  # type: ignore[arg-type]  # until the folded weight is known
        scheme.activation(options.form(bits, negative), found),
        scheme,
    )
    rounded.weight_quantizer = scheme.weight(weight_bits, rounded.folded()[0])
    _set(model, name, rounded.to(device))
    if norm is not None:
        _set(model, norm_name, nn.Identity())


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
