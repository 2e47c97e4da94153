"""Ratios from sensitivity curves that meet a budget, and the plot of curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from eightfold.compress.plan.budget import CostBudget, budgets_of
from eightfold.compress.plan.select import round_count
from eightfold.compress.sensitivity.curves import SensitivityCurves
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs
from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.files import atomic_path

BISECTIONS = 40


def ratios_for_budget(
    curves: SensitivityCurves,
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    max_macs: float | None = None,
    max_params: float | None = None,
) -> dict[str, float]:
    """Share of each group that goes, at the smallest common loss that meets the budget: bisection over that loss.

    Args:
        max_macs, max_params: to stay under; up to 1, a share of what the model has.

    Returns:
        group -> share that goes, such as `keep={name: 1 - share}` of `plan_pruning` takes it.

    Raises:
        UsageError: no budget, or one that the largest measured ratios do not meet.
    """
    graph = trace(model, example_inputs)
    budgets = budgets_of(model, graph, max_macs=max_macs, max_params=max_params)
    if not budgets:
        raise UsageError("ratios without a budget", allowed="max_macs or max_params")
    low, high = 0.0, max((max(row.values(), default=0.0) for row in curves.losses.values()), default=0.0)
    if not _holds(curves.ratios_by_loss(high), curves, graph, budgets):
        raise UsageError(
            f"{budgets[0].words} is out of reach of the measured ratios",
            allowed="a larger budget",
            remedy="measure larger ratios",
        )
    if _holds(curves.ratios_by_loss(low), curves, graph, budgets):
        return curves.ratios_by_loss(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _holds(curves.ratios_by_loss(middle), curves, graph, budgets):
            high = middle
        else:
            low = middle
    return curves.ratios_by_loss(high)


def _holds(
    ratios: Mapping[str, float], curves: SensitivityCurves, graph: ChannelGraph, budgets: tuple[CostBudget, ...]
) -> bool:
    kept = {}
    for name, ratio in ratios.items():
        group = graph.group(name)
        kept[name] = np.arange(round_count(group.width * (1 - ratio), group, curves.multiple))
    return all(budget.holds(kept) for budget in budgets)


def plot_curves(curves: SensitivityCurves, output: Path) -> Path:
    """Loss over ratio, a line for each group. `output`: .svg or .png."""
    figure = require("matplotlib.figure", "draw plots").Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, row in curves.losses.items():
        points = sorted(row.items())
        axes.plot([0.0, *(x for x, _ in points)], [0.0, *(y for _, y in points)], marker="o", markersize=3, label=name)
    axes.set(xlabel="share of the group's channels that go", ylabel="share of the metric that is lost")
    if len(curves.losses) <= 16:
        axes.legend(frameon=False, fontsize=7)
    with atomic_path(output) as temporary:
        figure.savefig(temporary)
    return output
