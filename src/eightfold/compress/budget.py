"""Budgets: the plan that keeps the most within so many multiply-accumulates or parameters, solved rather than guessed.

Costs are computed from the graph, without surgery: a layer's multiply-accumulates shrink with the share of its inputs
and of its outputs that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

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
    shares: list[_Share] = []
    for row, layer in enumerate(graph.layers):
        for factor, places in enumerate((layer.outputs, layer.inputs)):
            if factor == 0 or not layer.depthwise:  # a depthwise layer's inputs are its outputs
                groups, counts = np.unique(places[places[:, 0] >= 0, 0], return_counts=True)
                owned = zip(groups.tolist(), (counts / len(places)).tolist(), strict=True)
                shares += [_Share(factor, row, group, share) for group, share in owned]
    return _product_cost(graph, np.array([layer.macs for layer in graph.layers], dtype=np.float64), shares)


def parameters_cost(graph: ChannelGraph, parameters: Collection[str]) -> Cost:
    """Values in the tensors named `parameters` when `kept` stays."""
    wanted = set(parameters)
    row_of = {name: row for row, name in enumerate(name for name in graph.shapes if name in wanted)}
    shares = [
        _Share(m.dim, row_of[m.tensor], index, len(m.indices()) / graph.shapes[m.tensor][m.dim])
        for index, group in enumerate(graph.groups)
        for m in group.members
        if m.tensor in row_of
    ]
    return _product_cost(graph, np.array([prod(graph.shapes[name]) for name in row_of], dtype=np.float64), shares)


class _Share(NamedTuple):
    """The share of one factor (a dimension) of one item (a layer, a tensor) that belongs to a group."""

    factor: int
    item: int
    group: int
    share: float


def _product_cost(graph: ChannelGraph, sizes: Vector, shares: Sequence[_Share]) -> Cost:
    """Sum of `sizes` [items], each shrunk by the product of its factors: linear in the number of shares."""
    factors = 1 + max((entry.factor for entry in shares), default=0)
    place = np.array([entry.factor * len(sizes) + entry.item for entry in shares], dtype=np.int64)
    group = np.array([entry.group for entry in shares], dtype=np.int64)
    share = np.array([entry.share for entry in shares], dtype=np.float64)

    def cost(kept: Kept) -> float:
        gone = np.array([1 - len(kept[g.id]) / g.width if g.id in kept else 0.0 for g in graph.groups])
        lost = np.bincount(place, weights=share * gone[group], minlength=factors * len(sizes))
        return float((sizes * (1 - lost.reshape(factors, -1)).prod(axis=0)).sum())

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
    limits = []
    if max_macs is not None:
        limits.append(_limit("MACs", max_macs, macs_cost(graph)))
    if max_params is not None:
        limits.append(_limit("parameters", max_params, parameters_cost(graph, dict(model.named_parameters()))))
    return tuple(limits)


def _limit(name: str, most: float, cost: Cost) -> Limit:
    if most <= 0:
        raise UsageError(f"a budget of {most:g} {name}", allowed="above 0; up to 1 it is a share")
    total = most * cost({}) if most <= 1 else most
    return Limit(cost, total, f"at most {total:.4g} {name}")


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
    growing = [graph.group(name) for name in kept if not _given(graph, name, selection)]
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
