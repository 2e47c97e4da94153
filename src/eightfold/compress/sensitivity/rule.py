"""The rule "measured": widths by measured output error, at the cost of the uniform plan or within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from eightfold.compress.plan.budget import CostBudget
from eightfold.compress.plan.costs import macs_cost
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import Selection, matches, select
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.sensitivity.output_error import Curve, pruning_errors
from eightfold.compress.sensitivity.widths import kept_for_cost
from eightfold.compress.trace.groups import ChannelGraph, Group, Kept
from eightfold.compress.types import Batches
from eightfold.errors import UsageError


def measured_plan(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Batches,
    scores: LayerScores,
    selection: Selection,
    budgets: Sequence[CostBudget],
    plan_of: Callable[[Kept], PrunePlan],
) -> PrunePlan:
    """The plan with the least sum of measured output errors that costs no more than `budgets` allow.

    Args:
        batches: images.
        budgets: without any, the multiply-accumulates of the uniform plan with the same keep ratio.
        scores: for groups that no layer reads, which keep what the uniform rule gives them.
        plan_of: kept channels -> a plan that was checked to run; groups that it leaves whole stay out of a second try.

    Raises:
        UsageError: no images, or a budget out of reach.
    """
    _require_images(batches)
    if selection.ranges:
        raise UsageError("ranges with the rule 'measured'", allowed="a budget, or keep ratios by name")
    uniform, free = _free(graph, scores, selection)
    if not budgets:
        cost = macs_cost(graph)
        budgets = [CostBudget(cost, cost(uniform), f"MACs of keep ratio {selection.keep_ratio:g}")]
    curves = pruning_errors(model, graph, batches, free, multiple=selection.multiple)
    kept = _kept(free, curves, uniform, selection.multiple, budgets)
    plan = plan_of(kept)
    whole = {name for name in kept if len(kept[name]) < graph.group(name).width} - {group.id for group in plan.groups}
    if not whole:
        return plan
    rest = [group for group in free if group.id not in whole]
    return plan_of(
        _kept(rest, curves, {k: v for k, v in uniform.items() if k not in whole}, selection.multiple, budgets)
    )


def error_curves(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Batches,
    scores: LayerScores,
    selection: Selection,
) -> dict[str, Curve]:
    """Measured output errors of the groups that may shrink. Raises UsageError without images."""
    _require_images(batches)
    return pruning_errors(model, graph, batches, _free(graph, scores, selection)[1], multiple=selection.multiple)


def _require_images(batches: Batches) -> None:
    if not batches:
        raise UsageError("the rule 'measured' got no images", allowed="images=... (a tensor, or batches)")


def _free(graph: ChannelGraph, scores: LayerScores, selection: Selection) -> tuple[Kept, list[Group]]:
    """The uniform plan, and the groups that it may narrow whose counts the caller did not give."""
    uniform = select(graph, scores, selection.model_copy(update={"rule": "uniform"}))
    given = {g.id for g in graph.free if any(matches(g, pattern) for pattern in selection.keep)}
    return uniform, [graph.group(name) for name in uniform if name not in given]


def _kept(
    free: Sequence[Group], curves: dict[str, Curve], uniform: Kept, multiple: int, budgets: Sequence[CostBudget]
) -> Kept:
    """Within every budget, the tightest one after the other."""
    movable = [group for group in free if group.id in curves]
    fixed = {name: channels for name, channels in uniform.items() if name not in curves}
    found: Kept = {}
    for budget in budgets:
        found = kept_for_cost(movable, curves, budget.cost, budget.most, multiple=multiple, fixed=fixed)
        if all(each.holds(found) for each in budgets):
            break
    return found
