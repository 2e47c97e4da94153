"""Budgets: the plan that keeps the most within so many multiply-accumulates or parameters, solved rather than guessed.

Costs are computed from the graph, without surgery: a layer's multiply-accumulates shrink with the share of its inputs
and of its outputs that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from eightfold.compress.groups import ChannelGraph, Group, Index, Kept
from eightfold.compress.select import Selection, matches, select, top
from eightfold.compress.selection_rules import LayerScores, Vector
from eightfold.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

Cost = Callable[[Kept], float]
BISECTIONS = 24


def macs_cost(graph: ChannelGraph) -> Cost:
    """Multiply-accumulates of all layers when `kept` stays, for the traced input."""
    owned = np.zeros((2, len(graph.layers), len(graph.groups)))
    for row, layer in enumerate(graph.layers):
        for factor, places in enumerate((layer.outputs, layer.inputs)):
            if factor == 0 or not layer.depthwise:  # a depthwise layer's inputs are its outputs
                groups = places[places[:, 0] >= 0, 0]
                owned[factor, row] = np.bincount(groups, minlength=len(graph.groups)) / len(places)
    return _product_cost(graph, np.array([layer.macs for layer in graph.layers], dtype=np.float64), owned)


def parameters_cost(graph: ChannelGraph, parameters: Collection[str]) -> Cost:
    """Values in the tensors named `parameters` when `kept` stays."""
    row_of = {name: row for row, name in enumerate(name for name in graph.shapes if name in set(parameters))}
    sizes = np.array([prod(graph.shapes[name]) for name in row_of], dtype=np.float64)
    dims = max((len(graph.shapes[name]) for name in row_of), default=0)
    owned = np.zeros((dims, len(row_of), len(graph.groups)))
    for index, group in enumerate(graph.groups):
        for member in group.members:
            if member.tensor in row_of:
                share = len(member.indices()) / graph.shapes[member.tensor][member.dim]
                owned[member.dim, row_of[member.tensor], index] += share
    return _product_cost(graph, sizes, owned)


def _product_cost(graph: ChannelGraph, sizes: Vector, owned: Vector) -> Cost:
    """Sum of sizes, each shrunk by the product of its factors.

    Args:
        sizes: [items], when everything stays.
        owned: share of each factor of each item that belongs to each group, [factors, items, groups].
    """

    def cost(kept: Kept) -> float:
        gone = np.array([1 - len(kept[g.id]) / g.width if g.id in kept else 0.0 for g in graph.groups])
        return float((sizes * (1 - owned @ gone).prod(axis=0)).sum())

    return cost


@dataclass(frozen=True)
class Limit:
    cost: Cost
    most: float
    words: str

    def holds(self, kept: Kept) -> bool:
        return self.cost(kept) <= self.most


def limits_of(
    model: nn.Module, graph: ChannelGraph, *, max_macs: float | None, max_params: float | None
) -> tuple[Limit, ...]:
    """Budgets as numbers, or up to 1 as shares of what the model has."""
    parameters = [name for name, _ in model.named_parameters()]
    asked = (("MACs", max_macs, macs_cost(graph)), ("parameters", max_params, parameters_cost(graph, parameters)))
    limits = []
    for name, most, cost in asked:
        if most is not None:
            if most <= 0:
                raise UsageError(f"a budget of {most:g} {name}", allowed="above 0; up to 1 it is a share")
            total = most * cost({}) if most <= 1 else most
            limits.append(Limit(cost, total, f"at most {total:.4g} {name}"))
    return tuple(limits)


def within(limits: Sequence[Limit], graph: ChannelGraph, scores: LayerScores, selection: Selection) -> Kept:
    """The largest selection by `selection.rule` that holds all `limits`, then filled up; plain `select` without any.

    The keep ratio is found by bisection. Because counts come in steps, some budget is left over: it goes to the groups
    whose next step gains most score for its cost, as long as any step fits.

    Raises:
        UsageError: even the smallest aligned widths cost more than a limit allows.
    """
    if not limits:
        return select(graph, scores, selection)
    best = _at(graph, scores, selection, 1e-9)
    for limit in limits:
        if not limit.holds(best):
            raise UsageError(
                f"{limit.words} is out of reach",
                allowed=f"{limit.cost(best):.4g} to {limit.cost({}):.4g} with this rule and multiple",
                remedy="raise the budget, or lower the multiple",
            )
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = _at(graph, scores, selection, middle)
        if all(limit.holds(kept) for limit in limits):
            low, best = middle, kept
        else:
            high = middle
    return _filled(limits, graph, scores, selection, dict(best))


def _at(graph: ChannelGraph, scores: LayerScores, selection: Selection, keep_ratio: float) -> Kept:
    return select(graph, scores, selection.model_copy(update={"keep_ratio": keep_ratio}))


def _filled(
    limits: Sequence[Limit], graph: ChannelGraph, scores: LayerScores, selection: Selection, kept: dict[str, Index]
) -> Kept:
    """Grow single groups step by step while the limits allow, most score per cost first."""
    growing = [graph.group(name) for name in kept if not graph.group(name).tie and not _given(graph, name, selection)]
    while growing:
        before = limits[0].cost(kept)
        gains: list[tuple[float, Group, Index]] = []
        for group in growing:
            wider = _one_step_wider(group, kept[group.id], scores, selection.multiple)
            if wider is None or not all(limit.holds({**kept, group.id: wider}) for limit in limits):
                continue
            mean = scores[group.id].mean(0)
            gained = float(mean[wider].sum() - mean[kept[group.id]].sum()) / max(float(mean.sum()), 1e-12)
            gains.append((gained / max(limits[0].cost({**kept, group.id: wider}) - before, 1.0), group, wider))
        if gains:
            _, best, wider = max(gains, key=lambda gain: gain[0])
            kept[best.id] = wider
        growing = [group for _, group, _ in gains]
    return kept


def _given(graph: ChannelGraph, name: str, selection: Selection) -> bool:
    """Whether the caller fixed this group's ratio."""
    return any(matches(graph.group(name), pattern) for pattern in selection.keep)


def _one_step_wider(group: Group, kept: Index, scores: LayerScores, multiple: int) -> Index | None:
    count = len(kept) + group.step(multiple)
    if count > group.width:
        return None
    lifted = scores[group.id].mean(0).copy()
    lifted[kept] = np.inf  # what stays goes on staying
    return top(lifted, count)
