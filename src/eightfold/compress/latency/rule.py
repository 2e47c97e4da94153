"""The rule "latency": the plan that keeps most importance within a measured latency.

Layers are profiled, their sum is fitted to a few whole networks, an integer program chooses the counts, and the plan is
measured. A miss of more than 3% is added to the fit, and the program solved once more.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from eightfold.compress.latency.case import Case, report_of_case
from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.latency.request import LatencyRequest
from eightfold.compress.latency.rounds import round_limits
from eightfold.compress.latency.whole_network import WholeNetwork, fitting_plans
from eightfold.compress.plan.latency.budget_text import LatencyBudget
from eightfold.compress.plan.latency.choices import (
    WidthChoice,
    choices_by_error,
    choices_by_score,
    rescored_choices,
)
from eightfold.compress.plan.latency.prices import Prices, slowest
from eightfold.compress.plan.latency.program import BlockChoice, Solution, smallest, solve_program
from eightfold.compress.plan.latency.widths import NetworkLayer, widest
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import Selection, matches, prunable, round_count, top
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.sensitivity.output_error import Curve
from eightfold.compress.surgery.blocks import find_blocks
from eightfold.compress.trace.groups import ChannelGraph, Kept
from eightfold.compress.types import Batches
from eightfold.errors import UsageError
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, profile_layers
from eightfold.runtime.bench.profile.roofline import Roofline

LATENCY = "latency"  # the rule's name in a plan
AUTO = ("auto",)  # for `remove_blocks`: the program chooses them
MISS = 0.03
LEAST_ENERGY = 1e-3  # of a block's output that stays without the block
AIM = 0.985  # of the budget: the program fills it to the brim, and a prediction errs to both sides


class RooflineWarning(UserWarning):
    """Latencies are estimated by a roofline: the target's device is not here."""


def latency_plan(
    model: nn.Module,
    example_inputs: Any,
    graph: ChannelGraph,
    scores: LayerScores,
    selection: Selection,
    request: LatencyRequest,
    plan_of: Callable[[Kept], PrunePlan],
    rescored: Callable[[PrunePlan], LayerScores],
    curves: Mapping[str, Curve] | None = None,
) -> PrunePlan:
    """The plan with the most importance within the budget of `request`, whose `reports` gets the report.

    Args:
        scores: group id -> [layers, width].
        plan_of: kept channels -> a plan that was checked to run; groups that it leaves whole are left out.
        rescored: scores after a plan, for the rounds of `request`.
        curves: measured output errors by group: they then decide instead of the scores.

    Raises:
        UsageError: rounds beside `curves`; or the budget is out of reach: names the fastest that can be reached, and
            what limits it.
    """
    if curves and request.rounds > 1:
        raise UsageError(
            f"{request.rounds} rounds with the rule measured, whose errors hold for the whole network",
            allowed="rounds with scores, or one round",
        )
    case = _prepared(model, example_inputs, graph, scores, selection, request, curves)
    orders = {name: matrix.mean(axis=0) for name, matrix in scores.items()}
    orders |= {name: curve.order for name, curve in (curves or {}).items()}

    def checked(solution: Solution) -> PrunePlan:
        return plan_of({name: top(orders[name], count) for name, count in solution.counts.items()})

    def solved() -> tuple[Solution, PrunePlan]:
        solution = _solved(case)
        plan = checked(solution)
        stuck = _left_whole(solution, plan, graph)
        if stuck:
            case.choices = tuple(_fixed(choice, graph) if choice.group in stuck else choice for choice in case.choices)
            solution = _solved(case)
            plan = checked(solution)
        return solution, plan

    for limit in round_limits(case.whole_ms, case.limit_ms, request.rounds):
        case.round_ms = limit
        _, plan = solved()
        scores = rescored(plan)
        orders = {name: matrix.mean(axis=0) for name, matrix in scores.items()}
        case.choices = rescored_choices(case.choices, prunable(graph, selection), orders)
    case.round_ms = None
    solution, plan = solved()
    measured, solves = None, 1
    if case.network is not None:
        measured = _measured(case, solution)
        if abs(solution.predicted_ms / measured - 1) > MISS or measured > case.limit_ms:
            case.prices = case.prices.fitted([(counts, ms) for _, counts, ms in case.measured])
            solution, solves = _solved(case), 2
            plan = checked(solution)
            measured = _measured(case, solution)
    request.reports.append(report_of_case(case, solution, measured, solves))
    return plan


def blocks_to_remove(
    model: nn.Module,
    example_inputs: Any,
    graph: ChannelGraph,
    scores: LayerScores,
    selection: Selection,
    request: LatencyRequest,
    batches: Batches,
) -> tuple[tuple[str, ...], LatencyRequest]:
    """Residual blocks that a plan within the budget does best without, and the request for the rest of the network.

    A block is worth the logarithm of the energy that its output keeps without it, as channels are.

    Args:
        batches: images on which the blocks' contributions are measured.

    Raises:
        UsageError: no images, or the budget is out of reach.
    """
    if not batches:
        raise UsageError("residual blocks to be chosen, and no images to measure them on", allowed="images (--images)")
    case = _prepared(model, example_inputs, graph, scores, selection, request, None)
    blocks = []
    for block in find_blocks(model, batches):
        layers = frozenset(layer.name for layer in case.prices.layers if layer.name.startswith(f"{block.path}."))
        blocks.append(BlockChoice(block.path, layers, math.log(max(1 - block.share, LEAST_ENERGY))))
    solution = _solved(case, blocks)
    return solution.removed, replace(request, budget=LatencyBudget(ms=case.limit_ms))


def _prepared(
    model: nn.Module,
    example_inputs: Any,
    graph: ChannelGraph,
    scores: LayerScores,
    selection: Selection,
    request: LatencyRequest,
    curves: Mapping[str, Curve] | None,
) -> Case:
    layers = network_layers(model, example_inputs, graph, batch=request.batch)
    if not layers:
        raise UsageError("a latency budget for a network without layers that can be timed", allowed="convolutions, ...")
    profile = _profile(layers, request)
    multiple = selection.multiple
    groups = prunable(graph, selection)
    energies = {group.id: np.abs(scores[group.id].mean(axis=0)) for group in groups}
    fixed = {
        group.id: round_count(group.width * ratio, group, multiple)
        for pattern, ratio in selection.keep.items()
        for group in groups
        if matches(group, pattern)
    }
    choices = choices_by_score(groups, energies, multiple, block=profile.multiple if profile else multiple, fixed=fixed)
    if curves:
        errors = {
            choice.group: {count: curves[choice.group].at(count) for count in choice.counts}
            for choice in choices
            if choice.group in curves
        }
        choices = choices_by_error(groups, errors, choices)
    prices = Prices(layers, profile.at if profile else _roofline(request))
    case = Case(request, prices, choices, multiple, None)
    if profile is None:
        warnings.warn(
            f"no {request.target_name} device is here: latencies are a roofline's", RooflineWarning, stacklevel=4
        )
        case.whole_ms = prices.network_ms({})
    else:
        case.network = WholeNetwork(
            model, example_inputs, graph, profile.settings, batch=request.batch, write=request.write
        )
        _fit(case)
    return case


def _profile(layers: tuple[NetworkLayer, ...], request: LatencyRequest) -> LayerProfile | None:
    if not request.measurable and request.profile is None:
        if request.budget.ms is not None:
            raise UsageError(
                f"a budget of {request.budget} for {request.target_name}, which is not here",
                allowed="a share such as 0.5x: without the device, latencies are a roofline's",
                remedy="run eightfold profile on the device, and pass its file with --profile",
            )
        return None
    return profile_layers(widest(layers), request.store())


def _roofline(request: LatencyRequest) -> Callable[[LayerShape, float, float], float]:
    roofline = Roofline()

    def time(shape: LayerShape, inputs: float, outputs: float) -> float:
        return roofline.times([(shape, round(inputs), round(outputs))], int8=request.precision == "int8")[0]

    return time


def _fit(case: Case) -> None:
    """Measure whole networks, and fit the prices to them."""
    network = case.network
    assert network is not None
    plans = fitting_plans(
        {choice.group: choice.counts for choice in case.choices}, draws=max(0, case.request.fitting - 2)
    )
    times = network.measure(plans)
    case.measured = tuple((name, plans[name], ms) for name, ms in times.items())
    case.prices = case.prices.fitted([(counts, ms) for _, counts, ms in case.measured])
    case.whole_ms = times["whole"]


def _solved(case: Case, blocks: Sequence[BlockChoice] = ()) -> Solution:
    limit = case.round_ms or case.limit_ms
    found = solve_program(case.choices, case.prices, limit * AIM, blocks=blocks) or solve_program(
        case.choices, case.prices, limit, blocks=blocks
    )
    if found is None:
        least = smallest(case.choices)
        fastest = case.prices.network_ms(least)
        limits = ", ".join(f"{name} ({ms:.3f} ms)" for name, ms in slowest(case.prices, least))
        raise UsageError(
            f"a latency of {limit:.3f} ms ({case.request.budget}) is out of reach",
            allowed=f"{fastest:.3f} ms ({fastest / case.whole_ms:.2f}x) or more at channel multiple {case.multiple}",
            remedy=f"what limits it: {limits}; raise the budget, lower the multiple, or remove blocks",
        )
    return found


def _left_whole(solution: Solution, plan: PrunePlan, graph: ChannelGraph) -> set[str]:
    """Groups that were to shrink, and that the check left whole."""
    planned = {name for name, count in solution.counts.items() if count < graph.group(name).width}
    return planned - {group.id for group in plan.groups}


def _fixed(choice: WidthChoice, graph: ChannelGraph) -> WidthChoice:
    width = graph.group(choice.group).width
    return WidthChoice(choice.group, (width,), (choice.value_of(width),), choice.weight)


def _measured(case: Case, solution: Solution) -> float:
    """Latency of the plan, scaled to the machine's speed at the time of the fit by the whole network beside it."""
    assert case.network is not None
    times = case.network.measure({"whole": case.measured[0][1], "plan": solution.counts})
    ms = times["plan"] / times["whole"] * case.whole_ms
    case.measured = (*case.measured, ("plan", solution.counts, ms))
    return ms
