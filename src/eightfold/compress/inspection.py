"""A look at a network before pruning: size, cost, alignment, groups, and what is frozen and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn

from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.macs import count_parameters
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs
from eightfold.text_table import text_table

SHOWN = 12  # lines of a list


@dataclass(frozen=True)
class Share:
    """Share of the parameters and MACs that one child module accounts for."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelInspection:
    """Findings of `inspect_model`."""

    parameters: int
    macs: int  # of convolutions and linear layers, for the example input
    shares: tuple[Share, ...]  # one for each child module that has parameters or does work
    graph: ChannelGraph
    multiple: int
    misaligned: tuple[str, ...]  # layers with a width that is no multiple, as "name 3 -> 30"

    def describe(self) -> str:
        """Text for a person: size, groups, frozen channels, shares of child modules."""
        groups = self.graph.free
        widths = sum(group.width for group in groups)
        total = sum(group.width for group in self.graph.groups)
        prunable = sum(group.prunable(self.multiple) for group in groups)
        lines = [
            f"parameters {self.parameters:,}, MACs {self.macs:,}, {len(self.graph.layers)} conv and linear calls",
            "",
            *_table(self),
            "",
            f"channel groups: {len(self.graph.groups)}, {prunable} can be pruned to a multiple of {self.multiple}",
            f"coupled channels: {total}, {widths} of them free",
            *_first(f"  frozen: {count:6d}  {reason}" for reason, count in frozen_by(self.graph).most_common()),
            f"widths that are no multiple of {self.multiple}: {len(self.misaligned)}",
            *_first(f"  {name}" for name in self.misaligned),
            *(f"warning: {text}" for text in self.graph.warnings),
        ]
        return "\n".join(lines)


def _first(lines: Iterable[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    found = list(lines)
    return found if len(found) <= SHOWN else [*found[:SHOWN], f"  ... and {len(found) - SHOWN} more"]


def inspect_module(model: nn.Module, example_inputs: ExampleInputs, *, multiple: int = 8) -> ModelInspection:
    """Trace `model` and tell its parameters, MACs, their share by child module, groups and what is frozen.

    Raises:
        TraceError: the model does not run on the inputs.
    """
    graph = trace(model, example_inputs)
    return ModelInspection(
        parameters=count_parameters(model),
        macs=sum(layer.macs for layer in graph.layers),
        shares=_shares(model, graph),
        graph=graph,
        multiple=multiple,
        misaligned=tuple(_misaligned(graph, multiple)),
    )


def parameter_table(model: nn.Module) -> list[str]:
    """One line for each parameter: its name, shape and number of values."""
    rows = [
        (name, "x".join(map(str, each.shape)) or "1", f"{each.numel():,}") for name, each in model.named_parameters()
    ]
    return text_table([("parameter", "shape", "values"), *rows], left={0, 1})


def frozen_by(graph: ChannelGraph) -> Counter[str]:
    """Coupled channels that each reason froze; the module's path is left out."""
    found: Counter[str] = Counter()
    for group in graph.groups:
        if group.frozen:
            found[re.sub(r" in \S+$| in the model$", "", group.frozen)] += group.width
    return found


def _shares(model: nn.Module, graph: ChannelGraph) -> tuple[Share, ...]:
    macs: Counter[str] = Counter()
    parameters: Counter[str] = Counter({name: count_parameters(child) for name, child in model.named_children()})
    # The nodes of an ONNX graph read weights that the graph holds.
    held = {name: parameter.numel() for name, parameter in model.named_parameters(recurse=False)}
    for layer in graph.layers:
        child = layer.module.partition(".")[0]
        macs[child] += layer.macs
        parameters[child] += held.pop(layer.weight, 0) + held.pop(layer.bias, 0)
    return tuple(Share(name, count, macs[name]) for name, count in parameters.items() if count or macs[name])


def _misaligned(graph: ChannelGraph, multiple: int) -> list[str]:
    """Layers with an odd width; the image, which no layer makes, does not count."""
    made = {place for layer in graph.layers for place in np.unique(layer.outputs[:, 0]).tolist()}
    odd = {}
    for layer in graph.layers:
        inputs, outputs = len(layer.inputs), len(layer.outputs)
        from_layers = bool(made & set(layer.inputs[:, 0].tolist()))
        if outputs % multiple or (inputs % multiple and from_layers):
            odd[layer.weight] = f"{layer.weight} {inputs} -> {outputs}"
    return [text for name, text in odd.items() if name]


def _table(seen: ModelInspection) -> list[str]:
    wide = max([len(share.name) for share in seen.shares], default=6)
    rows = [f"  {'child':{wide}}  {'parameters':>13}         {'MACs':>15}"]
    for share in seen.shares:
        of_parameters = share.parameters / max(seen.parameters, 1)
        of_macs = share.macs / max(seen.macs, 1)
        cells = f"{share.parameters:13,} {of_parameters:6.1%}  {share.macs:15,} {of_macs:6.1%}"
        rows.append(f"  {share.name:{wide}}  {cells}")
    return rows
