"""One network under one latency request, and the report of what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eightfold.compress.latency.report import LatencyReport, PlanPoint, PointKind
from eightfold.compress.latency.request import LatencyRequest
from eightfold.compress.latency.whole_network import WholeNetwork
from eightfold.compress.plan.latency.choices import WidthChoice
from eightfold.compress.plan.latency.prices import Prices
from eightfold.compress.plan.latency.program import Solution, solve_program
from eightfold.compress.plan.latency.widths import Counts

FRONT = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
FRONT_S = 4.0  # to solve each point of the front


@dataclass
class Case:
    """One network under one request; `prices` grow better with every measurement. `round_ms` is the limit of a round
    before the last, `first_choices` are those by the scores of the whole network."""

    request: LatencyRequest
    prices: Prices
    choices: tuple[WidthChoice, ...]
    multiple: int
    network: WholeNetwork | None
    whole_ms: float = 0.0
    measured: tuple[tuple[str, Counts, float], ...] = ()
    round_ms: float | None = None
    first_choices: tuple[WidthChoice, ...] = ()

    def __post_init__(self) -> None:
        self.first_choices = self.first_choices or self.choices

    @property
    def limit_ms(self) -> float:
        """The budget in milliseconds."""
        return self.request.budget.limit_ms(self.whole_ms)


def report_of_case(case: Case, solution: Solution, measured: float | None, solves: int) -> LatencyReport:
    """The report of a plan, with the Pareto front and the networks that were measured."""
    settings = case.network.settings.describe() if case.network else f"{case.request.target_name}, roofline"
    whole = case.prices.network_ms({})
    points = [_point(case, "the plan", "chosen", solution.counts, measured)]
    for share in FRONT:
        found = solve_program(case.first_choices, case.prices, share * whole, seconds=FRONT_S)
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
        proven=solution.proven,
        solve_s=solution.seconds,
        solves=solves,
        rounds=case.request.rounds,
        fit_error=None if math.isnan(case.prices.fit.error) else case.prices.fit.error,
        counts=solution.counts,
        removed_blocks=solution.removed,
        points=tuple(points),
    )


def _point(case: Case, name: str, kind: PointKind, counts: Counts, measured: float | None) -> PlanPoint:
    values = sum(choice.value_of(counts.get(choice.group, choice.counts[-1])) for choice in case.first_choices)
    importance = math.exp(min(values, 0.0) / max(sum(choice.weight for choice in case.first_choices), 1))
    return PlanPoint(
        name=name,
        kind=kind,
        importance=importance,
        predicted_ms=case.prices.network_ms(counts),
        measured_ms=measured,
    )
