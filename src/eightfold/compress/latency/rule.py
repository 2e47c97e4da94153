"""The rule "latency": the plan that keeps most importance within a measured latency.

Layers are profiled, their sum is fitted to a few whole networks, an integer program chooses the counts, and the plan is
measured. A miss of more than 3% is added to the fit, and the program solved once more.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.latency.report import LatencyReport, PlanPoint, PointKind
from eightfold.compress.latency.request import LatencyRequest
from eightfold.compress.latency.whole_network import WholeNetwork, fitting_plans
from eightfold.compress.plan.latency.choices import Choice, choices_by_error, choices_by_score
from eightfold.compress.plan.latency.prices import Prices, slowest
from eightfold.compress.plan.latency.program import Solution, smallest, solve
from eightfold.compress.plan.latency.widths import NetworkLayer, widest
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import Selection, matches, prunable, round_count, top
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.sensitivity.output_error import Curve
from eightfold.compress.trace.groups import ChannelGraph, Kept
from eightfold.errors import UsageError
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, profile_layers
from eightfold.runtime.bench.profile.roofline import Roofline

LATENCY = "latency"  # the rule's name in a plan
MISS = 0.03
AIM = 0.985  # of the budget: the program fills it to the brim, and a prediction errs to both sides
FRONT = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
FRONT_S = 4.0  # to solve each point of the front
Counts = Mapping[str, int]


class RooflineWarning(UserWarning):
    """Latencies are estimated by a roofline: the target's device is not here."""


@dataclass
class _Case:
    """One network under one request; `prices` grow better with every measurement."""

    request: LatencyRequest
    prices: Prices
    choices: tuple[Choice, ...]
    multiple: int
    network: WholeNetwork | None
    whole_ms: float = 0.0
    measured: tuple[tuple[str, Counts, float], ...] = ()

    @property
    def limit_ms(self) -> float:
        return self.request.budget.limit_ms(self.whole_ms)


def latency_plan(
    model: nn.Module,
    example_inputs: Any,
    graph: ChannelGraph,
    scores: LayerScores,
    selection: Selection,
    request: LatencyRequest,
    plan_of: Callable[[Kept], PrunePlan],
    curves: Mapping[str, Curve] | None = None,
) -> PrunePlan:
    """The plan with the most importance within the budget of `request`, whose `reports` gets the report.

    Args:
        scores: group id -> [layers, width].
        plan_of: kept channels -> a plan that was checked to run; groups that it leaves whole are left out.
        curves: measured output errors by group: they then decide instead of the scores.

    Raises:
        UsageError: the budget is out of reach; names the fastest that can be reached, and what limits it.
    """
    case = _prepared(model, example_inputs, graph, scores, selection, request, curves)
    orders = {name: matrix.mean(axis=0) for name, matrix in scores.items()}
    orders |= {name: curve.order for name, curve in (curves or {}).items()}

    def checked(solution: Solution) -> PrunePlan:
        return plan_of({name: top(orders[name], count) for name, count in solution.counts.items()})

    solution = _solved(case)
    plan = checked(solution)
    stuck = _left_whole(solution, plan, graph)
    if stuck:
        case.choices = tuple(_fixed(choice, graph) if choice.group in stuck else choice for choice in case.choices)
        solution = _solved(case)
        plan = checked(solution)
    measured, solves = None, 1
    if case.network is not None:
        measured = _measured(case, solution)
        if abs(solution.predicted_ms / measured - 1) > MISS or measured > case.limit_ms:
            case.prices = case.prices.fitted([(counts, ms) for _, counts, ms in case.measured])
            solution, solves = _solved(case), 2
            plan = checked(solution)
            measured = _measured(case, solution)
    request.reports.append(_report(case, solution, measured, solves))
    return plan


def _prepared(
    model: nn.Module,
    example_inputs: Any,
    graph: ChannelGraph,
    scores: LayerScores,
    selection: Selection,
    request: LatencyRequest,
    curves: Mapping[str, Curve] | None,
) -> _Case:
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
    case = _Case(request, prices, choices, multiple, None)
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


def _fit(case: _Case) -> None:
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


def _solved(case: _Case) -> Solution:
    limit = case.limit_ms
    found = solve(case.choices, case.prices, limit * AIM) or solve(case.choices, case.prices, limit)
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


def _fixed(choice: Choice, graph: ChannelGraph) -> Choice:
    width = graph.group(choice.group).width
    return Choice(choice.group, (width,), (choice.value_of(width),))


def _measured(case: _Case, solution: Solution) -> float:
    """Latency of the plan, scaled to the machine's speed at the time of the fit by the whole network beside it."""
    assert case.network is not None
    times = case.network.measure({"whole": case.measured[0][1], "plan": solution.counts})
    ms = times["plan"] / times["whole"] * case.whole_ms
    case.measured = (*case.measured, ("plan", solution.counts, ms))
    return ms


def _report(case: _Case, solution: Solution, measured: float | None, solves: int) -> LatencyReport:
    settings = case.network.settings.describe() if case.network else f"{case.request.target_name}, roofline"
    whole = case.prices.network_ms({})
    points = [_point(case, "the plan", "chosen", solution.counts, measured)]
    for share in FRONT:
        found = solve(case.choices, case.prices, share * whole, seconds=FRONT_S)
        if found is not None:
            points.append(_point(case, f"optimal at {share:g}x", "optimal", found.counts, None))
    kinds: dict[str, PointKind] = {"whole": "whole", "plan": "fit"}
    for name, counts, ms in case.measured:
        kind = kinds.get(name, "uniform" if name.startswith("uniform") else "fit")
        points.append(_point(case, name, kind, counts, ms))
    return LatencyReport(
        settings=settings,
        batch=case.request.batch,
        budget=str(case.request.budget),
        budget_ms=case.limit_ms,
        multiple=case.multiple,
        measured=case.network is not None,
        whole_ms=case.whole_ms,
        predicted_ms=solution.predicted_ms,
        measured_ms=measured,
        gap=solution.gap,
        solve_s=solution.seconds,
        solves=solves,
        fit_error=None if math.isnan(case.prices.fit.error) else case.prices.fit.error,
        counts=solution.counts,
        removed_blocks=solution.removed,
        points=tuple(points),
    )


def _point(case: _Case, name: str, kind: PointKind, counts: Counts, measured: float | None) -> PlanPoint:
    values = [choice.value_of(counts.get(choice.group, choice.counts[-1])) for choice in case.choices]
    importance = float(np.mean(np.exp(np.minimum(values, 0.0)))) if values else 1.0
    return PlanPoint(
        name=name,
        kind=kind,
        importance=importance,
        predicted_ms=case.prices.network_ms(counts),
        measured_ms=measured,
    )
