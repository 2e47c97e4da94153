"""The rule "latency": the plan that keeps most importance within a measured latency.

Layers are profiled, their sum is fitted to a few whole networks, an integer program chooses the counts, and the plan is
measured. A miss of more than 3% is added to the fit, and the program solved once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from eightfold.compress.latency.case import Case, report_of_case
from eightfold.compress.latency.prepare import Subject, prepared
from eightfold.compress.latency.request import LatencyRequest
from eightfold.compress.latency.rounds import round_limits
from eightfold.compress.latency.solving import solved
from eightfold.compress.plan.latency.budget_text import LatencyBudget
from eightfold.compress.plan.latency.choices import BlockChoice, WidthChoice, rescored_choices
from eightfold.compress.plan.latency.program import Solution
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import prunable, top
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.surgery.blocks import find_blocks
from eightfold.compress.trace.groups import ChannelGraph, Kept
from eightfold.errors import UsageError

LATENCY = "latency"  # the rule's name in a plan
AUTO = ("auto",)  # for `remove_blocks`: the program chooses them
LEAST_ENERGY = 1e-3  # of a block's output that stays without the block


def latency_plan(
    subject: Subject,
    request: LatencyRequest,
    plan_of: Callable[[Kept], PrunePlan],
    rescored: Callable[[PrunePlan], LayerScores],
) -> PrunePlan:
    """The plan with the most importance within the budget of `request`, whose `reports` gets the report.

    Args:
        plan_of: kept channels -> a plan that was checked to run; groups that it leaves whole are left out.
        rescored: scores after a plan, for the rounds of `request`.

    Raises:
        UsageError: the budget is out of reach: names the fastest that can be reached, and what limits it.
    """
    case = prepared(subject, request)
    planner = _Planner(case, subject, plan_of)
    for limit in round_limits(case.whole_ms, case.limit_ms, request.rounds):
        case.round_share = limit / case.limit_ms
        planner.rescore(rescored(planner.solve()[1]))
    case.round_share = 1.0
    solution, plan = planner.solve()
    measured, solves = case.measure(solution), 1
    if case.missed(solution, measured):
        case.refit(solution, measured)
        solution, plan = planner.solve()
        measured, solves = case.measure(solution), 2
    request.reports.append(report_of_case(case, solution, measured, solves))
    return plan


def blocks_to_remove(subject: Subject, request: LatencyRequest) -> tuple[tuple[str, ...], LatencyRequest]:
    """Residual blocks that a plan within the budget does best without, and the request for the rest of the network.

    A block is worth the logarithm of the energy that its output keeps without it, as channels are.

    Raises:
        UsageError: no images, several budgets, or the budget is out of reach.
    """
    if not subject.batches:
        raise UsageError("residual blocks to be chosen, and no images to measure them on", allowed="images (--images)")
    if len(request.conditions) > 1 or request.memory or request.energy:
        raise UsageError(
            "residual blocks to be chosen under several budgets", allowed="one latency budget, or a number"
        )
    case = prepared(subject, request)
    blocks = []
    for block in find_blocks(subject.model, subject.batches):
        layers = frozenset(layer.name for layer in case.prices.layers if layer.name.startswith(f"{block.path}."))
        blocks.append(BlockChoice(block.path, layers, math.log(max(1 - block.share, LEAST_ENERGY))))
    solution = solved(case, blocks)
    return solution.removed, replace(request, budget=LatencyBudget(ms=case.limit_ms))


@dataclass
class _Planner:
    """Solves a case and makes plans of the solutions."""

    case: Case
    subject: Subject
    plan_of: Callable[[Kept], PrunePlan]

    def __post_init__(self) -> None:
        self._orders = {name: matrix.mean(axis=0) for name, matrix in self.subject.scores.items()}
        self._orders |= {name: curve.order for name, curve in (self.subject.curves or {}).items()}

    def solve(self) -> tuple[Solution, PrunePlan]:
        """A solution and its plan; groups that the check leaves whole are whole in the program, too."""
        solution = solved(self.case)
        plan = self._plan(solution)
        stuck = _left_whole(solution, plan, self.subject.graph)
        if stuck:
            self.case.choices = tuple(
                _fixed(choice, self.subject.graph) if choice.group in stuck else choice for choice in self.case.choices
            )
            solution = solved(self.case)
            plan = self._plan(solution)
        return solution, plan

    def rescore(self, scores: LayerScores) -> None:
        """Go on with other scores."""
        self._orders = {name: matrix.mean(axis=0) for name, matrix in scores.items()}
        groups = prunable(self.subject.graph, self.subject.selection)
        self.case.choices = rescored_choices(self.case.choices, groups, self._orders)

    def _plan(self, solution: Solution) -> PrunePlan:
        return self.plan_of({name: top(self._orders[name], count) for name, count in solution.counts.items()})


def _left_whole(solution: Solution, plan: PrunePlan, graph: ChannelGraph) -> set[str]:
    """Groups that were to shrink, and that the check left whole."""
    planned = {name for name, count in solution.counts.items() if count < graph.group(name).width}
    return planned - {group.id for group in plan.groups}


def _fixed(choice: WidthChoice, graph: ChannelGraph) -> WidthChoice:
    width = graph.group(choice.group).width
    return WidthChoice(choice.group, (width,), (choice.value_of(width),), choice.weight)
