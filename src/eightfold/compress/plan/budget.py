"""Budgets: the plan that keeps the most within a number of multiply-accumulates or parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eightfold.compress.plan.costs import Cost, macs_cost, parameters_cost
from eightfold.compress.plan.select import Selection, matches, select, top
from eightfold.compress.plan.selection_rules import TINY, LayerScores, Vector
from eightfold.compress.trace.groups import ChannelGraph, Group, Index, Kept
from eightfold.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

BISECTIONS = 24


class SlackBudgetWarning(UserWarning):
    """The whole network is within its budget."""


@dataclass(frozen=True)
class CostBudget:
    """An upper bound of a plan's cost; `name` and `words` are of what is counted and of the bound, in messages."""

    cost: Cost
    most: float
    name: str

    @property
    def words(self) -> str:
        """The bound in words."""
        return f"at most {self.most:.4g} {self.name}"

    def holds(self, kept: Kept) -> bool:
        """True if the kept channels cost no more than the bound."""
        return self.cost(kept) <= self.most


def budgets_of(
    model: nn.Module, graph: ChannelGraph, *, max_macs: float | None, max_params: float | None
) -> tuple[CostBudget, ...]:
    """Budgets as numbers, or up to 1 as shares of what the model has."""
    budgets = []
    if max_macs is not None:
        budgets.append(_budget("MACs", max_macs, macs_cost(graph)))
    if max_params is not None:
        budgets.append(_budget("parameters", max_params, parameters_cost(graph, dict(model.named_parameters()))))
    return tuple(budgets)


def _budget(name: str, most: float, cost: Cost) -> CostBudget:
    if most <= 0:
        raise UsageError(f"a budget of {most:g} {name}", allowed="above 0; up to 1 it is a share")
    total = most * cost({}) if most <= 1 else most
    return CostBudget(cost, total, name)


def tell_slack(budgets: Sequence[CostBudget]) -> bool:
    """Warn where the whole network is within all budgets, so that nothing has to go. Returns whether it is."""
    slack = bool(budgets) and all(budget.holds({}) for budget in budgets)
    if slack:
        has = " and ".join(f"{budget.cost({}):.4g} {budget.name}" for budget in budgets)
        warnings.warn(
            f"the network has {has}, within the budget of {' and '.join(budget.words for budget in budgets)}: nothing "
            "has to go; give less, or a share below 1",
            SlackBudgetWarning,
            stacklevel=3,
        )
    return slack


def within(budgets: Sequence[CostBudget], graph: ChannelGraph, scores: LayerScores, selection: Selection) -> Kept:
    """The largest selection by `selection.rule` that holds all `budgets`, then filled up; plain `select` without any.

    The keep ratio is found by bisection. Because counts come in steps, some budget is left over: it goes to the groups
    whose next step gains most score for its cost, as long as any step fits.

    Raises:
        UsageError: even the smallest aligned widths cost more than a budget allows.
    """
    if not budgets:
        return select(graph, scores, selection)
    best = _at(graph, scores, selection, 1e-9)
    for budget in budgets:
        if not budget.holds(best):
            raise UsageError(
                f"{budget.words} is out of reach",
                allowed=f"{budget.cost(best):.4g} to {budget.cost({}):.4g} with this rule and multiple",
                remedy="raise the budget, or lower the multiple",
            )
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = _at(graph, scores, selection, middle)
        if all(budget.holds(kept) for budget in budgets):
            low, best = middle, kept
        else:
            high = middle
    return _filled(budgets, graph, scores, selection, dict(best))


def _at(graph: ChannelGraph, scores: LayerScores, selection: Selection, keep_ratio: float) -> Kept:
    return select(graph, scores, selection.model_copy(update={"keep_ratio": keep_ratio}))


def _filled(
    budgets: Sequence[CostBudget],
    graph: ChannelGraph,
    scores: LayerScores,
    selection: Selection,
    kept: dict[str, Index],
) -> Kept:
    """Grow single groups step by step while the budgets allow, most score per cost first."""
    growing = [graph.group(name) for name in kept if not _given(graph, name, selection)]
    steps = {group.id: _next_step(group, kept[group.id], scores[group.id], selection.multiple) for group in growing}
    while gains := _gains(budgets, kept, steps):
        best = max(gains, key=gains.__getitem__)
        kept[best] = steps[best].kept
        steps = {name: steps[name] for name in gains}  # what did not fit never will
        steps[best] = _next_step(graph.group(best), kept[best], scores[best], selection.multiple)
    return kept


def _given(graph: ChannelGraph, name: str, selection: Selection) -> bool:
    """True if the caller fixed this group's ratio."""
    return any(matches(graph.group(name), pattern) for pattern in selection.keep)


class _Step(NamedTuple):
    kept: Index  # what stays of the group when it is one step wider; as it is when no step is left
    gained: float  # share of the group's scores


def _gains(budgets: Sequence[CostBudget], kept: Kept, steps: Mapping[str, _Step]) -> dict[str, float]:
    """Score per cost of each step that all budgets allow."""
    wider = {name: step.kept for name, step in steps.items() if len(step.kept) > len(kept[name])}
    growths = [budget.cost.growths(kept, wider) for budget in budgets]
    room = [budget.most - budget.cost(kept) for budget in budgets]
    fitting = [name for name in wider if all(growth[name] <= left for growth, left in zip(growths, room, strict=True))]
    return {name: steps[name].gained / max(growths[0][name], 1.0) for name in fitting}


def _next_step(group: Group, kept: Index, scores: Vector, multiple: int) -> _Step:
    """With the channels that score highest beside those that stay; `scores`: [layers, width]."""
    count = len(kept) + group.step(multiple)
    if count > group.width:
        return _Step(kept, 0.0)
    mean = scores.mean(0)
    lifted = mean.copy()
    lifted[kept] = np.inf  # what stays goes on staying
    wider = top(lifted, count)
    return _Step(wider, float(mean[wider].sum() - mean[kept].sum()) / max(float(mean.sum()), TINY))
