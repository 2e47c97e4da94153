"""The correctness rule as a measurement: a pruned model answers like the original with the removed channels zeroed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from eightfold.compress.groups import ChannelGraph, Kept
from eightfold.compress.plan import PrunePlan
from eightfold.compress.surgery import applied
from eightfold.compress.trace import call_model, preserved


def random_plan(graph: ChannelGraph, *, keep_ratio: float = 0.5, multiple: int = 8, seed: int = 0) -> PrunePlan:
    """A plan that keeps random channels of every prunable group: any plan must obey the rule."""
    generator = np.random.default_rng(seed)
    kept: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
    counts: dict[str, int] = {}
    for group in graph.free:
        if group.prunable(multiple):
            step = group.step(multiple)
            count = int(np.clip(round(group.width * keep_ratio / step), 1, group.width // step)) * step
            count = counts.setdefault(group.tie, count) if group.tie else count
            kept[group.id] = np.sort(generator.permutation(group.width)[:count])
    chosen: Kept = kept
    return PrunePlan.from_graph(graph, chosen, multiple=multiple, rule="random", score="random")


@contextlib.contextmanager
def zeroed(model: nn.Module, plan: PrunePlan) -> Iterator[nn.Module]:
    """`model` with the parameters of the plan's removed channels set to zero, and as it was afterwards."""
    parameters = dict(model.named_parameters())
    data = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for (name, dim), gone in plan.removed_indices().items():
            if name in parameters:
                parameters[name].data = parameters[name].data.index_fill(dim, torch.from_numpy(gone), 0.0)
        yield model
    finally:
        for name, parameter in parameters.items():
            parameter.data = data[name]


def oracle_error(model: nn.Module, example_inputs: Any, plan: PrunePlan) -> float:
    """Largest |pruned - zeroed| over all outputs in evaluation mode, relative to each output's largest."""
    with zeroed(model, plan):
        expected = outputs(model, example_inputs)
    with applied(model, plan):
        seen = outputs(model, example_inputs)
    if [tensor.shape for tensor in seen] != [tensor.shape for tensor in expected]:
        return float("inf")
    return max((_relative(a, b) for a, b in zip(seen, expected, strict=True)), default=0.0)


def outputs(model: nn.Module, example_inputs: Any) -> list[torch.Tensor]:
    """All tensors that the model returns in evaluation mode, in order."""
    with preserved(model), torch.no_grad():
        model.eval()
        leaves = tree_leaves(call_model(model, example_inputs))
    return [leaf.detach().clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    if not expected.numel():
        return 0.0
    scale = float(expected.double().abs().max())
    return float((seen.double() - expected.double()).abs().max()) / max(scale, 1e-12)
