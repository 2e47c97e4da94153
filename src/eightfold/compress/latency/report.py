"""`LatencyReport`: budget, prediction, measurement and the Pareto front of a plan within a latency budget."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from eightfold.runtime.bench.profile.roofline import UNCERTAINTY
from eightfold.text_table import text_table
from eightfold.values import Frozen, Value

MISSED = 1.03  # measured over asked for
PointKind = Literal["whole", "chosen", "optimal", "uniform", "global", "fit"]


class PlanPoint(Frozen):
    """One plan: importance that it keeps, and its latency."""

    name: str
    kind: PointKind
    importance: float = Field(description="share of importance that a layer keeps, 0 to 1: geometric mean")
    predicted_ms: float
    measured_ms: float | None = None


class SideReport(Frozen):
    """A further quantity that the plan stays within: latency on another target, memory or energy."""

    name: str
    unit: str
    budget: str
    limit: float | None = Field(description="in the unit; null where a weighted sum of latencies is limited")
    whole: float = Field(description="of the whole network")
    predicted: float
    measured: float | None = None

    def describe(self) -> str:
        """One line for a person."""
        most = "" if self.limit is None else f", budget {self.budget} = {self.limit:.3f} {self.unit}"
        seen = "not measured" if self.measured is None else f"measured {self.measured:.3f}"
        missed = self.limit is not None and self.measured is not None and self.measured > MISSED * self.limit
        line = f"{self.name}: predicted {self.predicted:.3f} {self.unit}, {seen}{most}"
        return line + (" MISSED" if missed else "")


class LatencyReport(Value):
    """Everything that tells how a plan within a latency budget was found, and whether it holds."""

    kind: ClassVar[str] = "latency report"

    settings: str = Field(description="target, precision, back end, threads and device, in words")
    batch: int
    budget: str
    budget_ms: float
    multiple: int
    measured: bool = Field(description="false: no whole network was timed, as the target's device is not here")
    profiled: bool = Field(default=True, description="false: prices are a roofline's")
    whole_ms: float
    predicted_ms: float
    measured_ms: float | None = None
    gap: float = Field(description="relative distance of the plan to the best bound that the solver proved")
    proven: bool = Field(default=True, description="false: the solver was stopped by its time limit")
    solve_s: float
    solves: int = Field(default=1, description="times that the program was solved: once more after a miss of over 3%")
    rounds: int = Field(default=1, description="steps of pruning and scoring anew")
    fit_error: float | None = Field(default=None, description="largest relative error where prices were fitted")
    counts: dict[str, int] = Field(description="group -> channels that stay")
    removed_blocks: tuple[str, ...] = ()
    sides: tuple[SideReport, ...] = Field(default=(), description="further targets, memory and energy")
    keep_float: tuple[str, ...] = Field(default=(), description="layers that stay in float where others are INT8")
    float_places: tuple[int, ...] = Field(default=(), description="their places among the layers with weights")
    weighted_layers: int = Field(default=0, description="number of layers with weights, where precisions were chosen")
    points: tuple[PlanPoint, ...] = Field(default=(), description="the Pareto front, the plan, and naive plans")

    @property
    def miss(self) -> float | None:
        """Predicted over measured latency, less 1."""
        return None if self.measured_ms is None else self.predicted_ms / self.measured_ms - 1

    def describe(self) -> str:
        lines = [
            f"latency budget {self.budget} = {self.budget_ms:.3f} ms at batch {self.batch}: {self.settings}",
            f"predicted {self.predicted_ms:.3f} ms" + self._measurement(),
            f"{'solved' if self.proven else 'stopped by the time limit'} in {self.solve_s:.1f} s, gap {self.gap:.2%}, "
            f"channel multiple {self.multiple}",
        ]
        lines += [side.describe() for side in self.sides]
        if self.weighted_layers:
            kept = ", ".join(self.keep_float) or "none"
            lines.append(f"layers that stay in float, of {self.weighted_layers}: {kept}")
        if not self.measured and self.profiled:
            lines.append(
                "layers were profiled on another machine, and no whole network was timed: measure the result there"
            )
        elif not self.measured:
            lines.append(
                "no device of this target is here: latencies are a roofline's, uncertain by a factor of "
                f"{UNCERTAINTY:g}; measure the result on the device"
            )
        if self.measured_ms is not None and self.measured_ms > MISSED * self.budget_ms:
            lines.append(
                f"the budget is MISSED by {self.measured_ms / self.budget_ms - 1:.1%}; ask for less, or measure "
                "on a quiet machine"
            )
        head = ("plan", "importance", "predicted ms", "measured ms")
        shown = sorted((each for each in self.points if each.kind != "fit"), key=lambda each: -each.predicted_ms)
        rows = [(p.name, f"{p.importance:.3f}", f"{p.predicted_ms:.3f}", _ms(p.measured_ms)) for p in shown]
        return "\n".join([*lines, *text_table([head, *rows], left={0})])

    def _measurement(self) -> str:
        if self.measured_ms is None or self.miss is None:
            return f", {self.predicted_ms / self.whole_ms:.2f} of the whole network"
        share = f"{self.measured_ms / self.whole_ms:.2f} of the whole network"
        return f", measured {self.measured_ms:.3f} ms: {share}; prediction off by {self.miss:+.1%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
