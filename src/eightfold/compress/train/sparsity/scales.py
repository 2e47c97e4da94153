"""Batch norm scales that sparse training penalizes, by layer set.

The sets are those of the selection rules: scales are penalized where the rule would prune them.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.plan.selection_rules import coupled
from eightfold.compress.surgery.blocks import find_blocks
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs
from eightfold.errors import ModelError, UsageError, one_of

LayerSet = Literal["all", "normal", "shortcut", "layer"]
LAYER_SETS: tuple[LayerSet, ...] = ("all", "normal", "shortcut", "layer")
Scales = dict[str, nn.Parameter]


def penalized_scales(model: nn.Module, layers: LayerSet = "all", example_inputs: ExampleInputs | None = None) -> Scales:
    """Name -> batch norm scale, for the layers of a set.

    Args:
        layers: "all": every batch norm; "normal": those of groups that one layer makes, which no shortcut couples;
            "shortcut": those of every group that can be pruned; "layer": the last one of each residual block.
        example_inputs: what the model is called with; "all" needs none.

    Raises:
        UsageError: a set that needs example inputs, without any.
        ModelError: the set is empty.
    """
    one_of("layer set", layers, LAYER_SETS)
    if layers != "all" and example_inputs is None:
        raise UsageError(f"the layer set {layers!r} without example inputs", allowed="example_inputs=...; or 'all'")
    found = batch_norm_scales(model) if example_inputs is None else _found(model, layers, example_inputs)
    if not found:
        raise ModelError(
            f"no batch norm scales in the layer set {layers!r}",
            allowed="networks with batch norms there",
            remedy="choose another set, or the group lasso, which needs no batch norms",
        )
    return found


def batch_norm_scales(model: nn.Module) -> Scales:
    """The scale of every affine batch norm, by name; shared ones once."""
    scales: dict[int, tuple[str, nn.Parameter]] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and isinstance(module.weight, nn.Parameter):
            scales.setdefault(id(module.weight), (f"{path}.weight" if path else "weight", module.weight))
    return dict(scales.values())


def shifts_of(model: nn.Module, scales: Scales) -> Scales:
    """The shift of each batch norm whose scale is given, by the scale's name."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {name: parameters[name.removesuffix("weight") + "bias"] for name in scales}


def _found(model: nn.Module, layers: LayerSet, example_inputs: ExampleInputs) -> Scales:
    scales = batch_norm_scales(model)
    if layers == "all":
        return scales
    if layers == "layer":
        args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        blocks = [block.path for block in find_blocks(model, [args])]
        last = {path: [name for name in scales if name.startswith(f"{path}.")][-1:] for path in blocks}
        return {name: scales[name] for names in last.values() for name in names}
    return {name: scales[name] for name in _of_groups(model, trace(model, example_inputs), layers) if name in scales}


def _of_groups(model: nn.Module, graph: ChannelGraph, layers: LayerSet) -> list[str]:
    evidence = Evidence(model, graph)
    depthwise = frozenset(layer.weight for layer in graph.layers if layer.depthwise)
    groups = [group for group in graph.free if layers == "shortcut" or not coupled(group, depthwise)]
    return list(dict.fromkeys(member.tensor for group in groups for member in evidence.norm_scales(group)))
