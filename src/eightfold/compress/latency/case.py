"""One network under one latency request, and the report of what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eightfold.compress.latency.damage import Damage
from eightfold.compress.latency.report import LatencyReport, PlanPoint, PointKind
from eightfold.compress.latency.request import LatencyRequest
from eightfold.compress.latency.side import Side
from eightfold.compress.latency.whole_network import WholeNetwork
from eightfold.compress.plan.latency.choices import WidthChoice
from eightfold.compress.plan.latency.naive import global_plan, uniform_plan
from eightfold.compress.plan.latency.prices import Mixed, Prices, WeightedPrices
from eightfold.compress.plan.latency.program import Solution, solve_program
from eightfold.compress.plan.latency.widths import Counts

FRONT = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
NAIVE = (0.8, 0.65, 0.5, 0.35)  # of the channels
FRONT_S = 4.0  # to solve each point of the front


@dataclass
class Case:
    """One network under one request.

    Attributes:
        main: the latency on the first target, in milliseconds.
        network: measures it; None where the target is not here.
        round_share: of the limits, in a round before the last.
        first_choices: those by the scores of the whole network.
        sides: further targets, memory and energy.
        profiled: settings of the profile; empty where prices are a roofline's.
        mixed, damage: where the program chooses precisions.
    """

    request: LatencyRequest
    main: Side
    choices: tuple[WidthChoice, ...]
    multiple: int
    network: WholeNetwork | None
    round_share: float = 1.0
    first_choices: tuple[WidthChoice, ...] = ()
    sides: tuple[Side, ...] = ()
    profiled: str = ""
    mixed: Mixed | None = None
    damage: Damage | None = None

    def __post_init__(self) -> None:
        self.first_choices = self.first_choices or self.choices

    @property
    def prices(self) -> Prices:
        """Milliseconds of plans."""
        return self.main.prices

    @property
    def whole_ms(self) -> float:
        """Milliseconds of the whole network."""
        return self.main.whole

    @property
    def limit_ms(self) -> float:
        """The budget in milliseconds."""
        return self.request.budget.limit_ms(self.whole_ms)

    def measure(self, solution: Solution) -> PlanMeasurement:
        """The plan's latency, and the further quantities."""
        return PlanMeasurement(self._latency(solution), tuple(side.check(solution.counts) for side in self.sides))

    def _latency(self, solution: Solution) -> float | None:
        if self.network is None or self.damage is None:
            return self.main.check(solution.counts)
        plans = {"whole": self.main.measured[0][1], "plan": solution.counts}
        times = self.network.measure(plans, {"plan": self.places(solution)})
        return times["plan"] / times["whole"] * self.whole_ms

    def missed(self, solution: Solution, measured: PlanMeasurement) -> bool:
        """True if a measurement is over its budget, or over 3% off its prediction."""
        main = self.main.missed(solution.predicted_ms, measured.ms) or self._over_weighted(measured)
        predicted = [side.prices.network_ms(solution.counts) for side in self.sides]
        sides = zip(self.sides, predicted, measured.sides, strict=True)
        return main or any(side.missed(each, value) for side, each, value in sides)

    def _over_weighted(self, measured: PlanMeasurement) -> bool:
        """True if the weighted mean of the measured shares is over the budget."""
        if not self.main.weight or measured.ms is None:
            return False
        parts = [(self.main.weight, measured.ms / self.whole_ms)]
        parts += [
            (side.weight, value / side.whole)
            for side, value in zip(self.sides, measured.sides, strict=True)
            if side.weight and value is not None
        ]
        mean = sum(weight * share for weight, share in parts) / sum(weight for weight, _ in parts)
        return mean > (self.request.budget.share or 1.0)

    def refit(self, solution: Solution, measured: PlanMeasurement) -> None:
        """Fit the prices to all that was measured; of chosen precisions, scale them to the plan."""
        if self.mixed is not None and measured.ms is not None:
            factor = measured.ms / solution.predicted_ms
            self.mixed = Mixed(WeightedPrices(((factor, self.mixed.floats),)), self.mixed.damage)
            self.main.prices = self.prices.scaled(factor)
        else:
            self.main.refit()
        for side in self.sides:
            side.refit()

    def places(self, solution: Solution) -> tuple[int, ...]:
        """Places of the layers that stay in float."""
        return () if self.damage is None else tuple(self.damage.places[name] for name in solution.keep_float)


@dataclass(frozen=True)
class PlanMeasurement:
    """A plan's latency, and the further quantities, in the order of the sides; None where nothing is measured."""

    ms: float | None
    sides: tuple[float | None, ...]


def report_of_case(case: Case, solution: Solution, outcome: PlanMeasurement, solves: int) -> LatencyReport:
    """The report of a plan, with the Pareto front and the networks that were measured."""
    measured = outcome.ms
    settings = case.profiled or f"{case.request.target_name}, roofline"
    whole = case.prices.network_ms({})
    points = [_point(case, "the plan", "chosen", solution.counts, measured, solution.predicted_ms)]
    for share in FRONT:
        found = solve_program(case.first_choices, case.prices, share * whole, mixed=case.mixed, seconds=FRONT_S)
        if found is not None:
            name = f"optimal at {share:g}x"
            points.append(_point(case, name, "optimal", found.counts, None, found.predicted_ms))
    for share in NAIVE:
        points.append(_point(case, f"uniform at {share:g}", "uniform", uniform_plan(case.first_choices, share), None))
        points.append(_point(case, f"global at {share:g}", "global", global_plan(case.first_choices, share), None))
    kinds: dict[str, PointKind] = {"whole": "whole", "plan": "fit"}
    for name, counts, ms in case.main.measured:
        kind = kinds.get(name, "uniform" if name.startswith("uniform") else "fit")
        points.append(_point(case, name, kind, counts, ms))
    return LatencyReport(
        settings=settings,
        batch=case.request.batch,
        budget=str(case.request.budget),
        budget_ms=case.limit_ms,
        multiple=case.multiple,
        measured=case.network is not None,
        profiled=bool(case.profiled),
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
        sides=tuple(side.report(solution.counts, value) for side, value in zip(case.sides, outcome.sides, strict=True)),
        keep_float=solution.keep_float,
        float_places=case.places(solution),
        weighted_layers=0 if case.damage is None else case.damage.layers,
        points=tuple(points),
    )


def _point(
    case: Case, name: str, kind: PointKind, counts: Counts, measured: float | None, predicted: float | None = None
) -> PlanPoint:
    """A point; `predicted` where the prices of the counts alone do not tell, as with chosen precisions."""
    values = sum(choice.value_of(counts.get(choice.group, choice.counts[-1])) for choice in case.first_choices)
    importance = math.exp(min(values, 0.0) / max(sum(choice.weight for choice in case.first_choices), 1))
    return PlanPoint(
        name=name,
        kind=kind,
        importance=importance,
        predicted_ms=case.prices.network_ms(counts) if predicted is None else predicted,
        measured_ms=measured,
    )
