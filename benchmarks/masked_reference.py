"""The correctness rule as a measurement: a pruned model answers like the original with the removed channels zeroed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from eightfold.compress.modules.modules import call_model, preserved
from eightfold.compress.modules.weight_norm import normed_weights, weights_kept
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import applied
from eightfold.compress.trace.groups import ChannelGraph, Kept
from eightfold.compress.types import ExampleInputs
from eightfold.export.verify.module_runs import set_evaluation


def random_plan(graph: ChannelGraph, *, keep_ratio: float = 0.5, multiple: int = 8, seed: int = 0) -> PrunePlan:
    """A plan that keeps random channels of every prunable group: any plan must obey the rule."""
    generator = np.random.default_rng(seed)
    kept: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
    for group in graph.free:
        if group.prunable(multiple):
            step = group.step(multiple)
            count = int(np.clip(round(group.width * keep_ratio / step), 1, group.width // step)) * step
            kept[group.id] = np.sort(generator.permutation(group.width)[:count])
    chosen: Kept = kept
    return PrunePlan.from_graph(graph, chosen, multiple=multiple, rule="random", score="random")


@contextlib.contextmanager
def zeroed(model: nn.Module, plan: PrunePlan) -> Iterator[nn.Module]:
    """`model` with the parameters of the plan's removed channels set to zero, and as it was afterwards."""
    parameters = dict(model.named_parameters())
    data = {name: parameter.data for name, parameter in parameters.items()}
    removed = plan.removed_indices()
    # A direction of length zero has no norm to divide by; its scale is zeroed instead.
    spared = {(weight.direction, weight.dim) for weight in normed_weights(model)}
    try:
        with weights_kept(model, {name for name, _ in removed}):
            for (name, dim), gone in removed.items():
                if name in parameters and (name, dim) not in spared:
                    parameters[name].data = parameters[name].data.index_fill(dim, torch.from_numpy(gone), 0.0)
        yield model
    finally:
        for name, parameter in parameters.items():
            parameter.data = data[name]


def masked_error(
    model: nn.Module, example_inputs: ExampleInputs, plan: PrunePlan, graph: ChannelGraph | None = None
) -> float:
    """Largest |pruned - zeroed| over all outputs in evaluation mode, relative to each output's largest.

    With the `graph` of a model whose output shapes depend on values, the outputs of all layers that the plan leaves
    whole are compared instead: those of a detector's heads, before boxes are chosen by comparing floats.
    """
    probes = whole_layers(graph, plan) if graph and graph.data_dependent else ()
    with zeroed(model, plan):
        expected = outputs(model, example_inputs, probes)
    with applied(model, plan):
        seen = outputs(model, example_inputs, probes)
    if [tensor.shape for tensor in seen] != [tensor.shape for tensor in expected]:
        return float("inf")
    return max((_relative(a, b) for a, b in zip(seen, expected, strict=True)), default=0.0)


def whole_layers(graph: ChannelGraph, plan: PrunePlan) -> tuple[str, ...]:
    """Paths of the modules that run a layer none of whose output channels goes."""
    pruned = {index for index, group in enumerate(graph.groups) if group.id in plan.kept}
    layers = (layer for layer in graph.layers if not pruned & set(layer.outputs[:, 0].tolist()))
    return tuple(dict.fromkeys(layer.module for layer in layers if layer.module))


def outputs(model: nn.Module, example_inputs: ExampleInputs, probes: Sequence[str] = ()) -> list[torch.Tensor]:
    """All tensors that the model, or the modules `probes` of it, return in evaluation mode, in order."""
    found: list[torch.Tensor] = []

    def collect(_: nn.Module, __: Any, result: Any) -> None:
        found.extend(leaf.detach().clone() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))

    handles = [model.get_submodule(path).register_forward_hook(collect) for path in probes]
    try:
        with preserved(model), torch.no_grad():
            set_evaluation(model)
            result = call_model(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not probes:
        collect(model, None, result)
    return found


def _relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    if not expected.numel():
        return 0.0
    scale = float(expected.double().abs().max())
    return float((seen.double() - expected.double()).abs().max()) / max(scale, 1e-12)
