"""`ReportContent`: everything that a report shows, as plain data. Whoever fills it decides what is true; nothing is
computed here, so that a report can be made again from its saved content, on any machine, with the same bytes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from eightfold.errors import EightfoldError, UsageError
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.manifest import Step
from eightfold.values import Frozen, Value

Unit = Literal["count", "MACs", "bytes", "percent", "ms", "times", "seconds"]
"""How a number is written: 11,181,642 parameters as 11.2 M, bytes as MB, percent with one decimal, times as 3.4x."""


VERDICTS = {True: "holds", False: "DOES NOT HOLD", None: "not shown"}


class Card(Frozen):
    """One headline number, with what it was before and, where it was measured with one, its interval."""

    label: str
    value: float
    unit: Unit
    before: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


class Check(Frozen):
    """A checked limit. `passed` is None if the data do not decide it; `seen` gives the reason."""

    name: str
    passed: bool | None
    seen: str
    wanted: str = ""
    remedy: str = Field(default="", description="the next thing to try where it does not hold or was not shown")
    over_limit: bool = Field(default=False, description="not shown, but the estimate itself misses the limit")


class WidthChange(Frozen):
    """Input and output channels of one layer, before and after pruning."""

    layer: str
    kind: str = ""
    in_before: int
    in_after: int
    out_before: int
    out_after: int


class RecoveryCurves(Frozen):
    """A recovery's feature error by step, and its agreement with the original on held-out images."""

    steps: tuple[int, ...] = ()
    feature_errors: tuple[float, ...] = ()
    checked_steps: tuple[int, ...] = ()
    agreements: tuple[float, ...] = ()


class Accuracy(Frozen):
    """The task metric of one artifact, measured on that artifact; or why it was not measured."""

    artifact: str
    metric: str
    value: float | None
    unit: Literal["percent", "plain"] = "percent"
    images: int = 0
    change: float | None = Field(default=None, description="value minus the baseline's")
    note: str = ""


class ArtifactSteps(Frozen):
    """Steps that made one artifact, each with its error against the artifact before it."""

    artifact: str
    path: str = ""
    bytes: int | None = None
    steps: tuple[Step, ...]


class Engine(Frozen):
    """An engine, built or failed, with the messages of parser and builder."""

    name: str
    target: str
    precision: str
    batch: int | None = None
    built: bool
    bytes: int | None = None
    seconds: float | None = None
    requires: dict[str, str] = Field(default={}, description="what a machine must have to load it")
    messages: tuple[str, ...] = ()


class NotDone(Frozen):
    """A result that a reader might expect but that is missing, with the reason and the remedy."""

    what: str
    why: str
    remedy: str = ""


class Snippet(Frozen):
    """Something to copy and run."""

    title: str
    code: str


class ReportContent(Value):
    """Content of `write_report`, section by section; a section without content is left out."""

    kind: ClassVar[str] = "report content"
    error: ClassVar[type[EightfoldError]] = UsageError

    title: str
    subtitle: str = ""
    created: str = Field(default="", description="when, if it should be shown: the report itself never reads the clock")
    cards: tuple[Card, ...] = ()
    checks: tuple[Check, ...] = ()
    latency: LatencyTable | None = None
    accuracy: tuple[Accuracy, ...] = ()
    widths: tuple[WidthChange, ...] = ()
    recovery: RecoveryCurves = RecoveryCurves()
    plan: str = Field(default="", description="what the pruning plan says of itself, as preformatted text")
    artifacts: tuple[ArtifactSteps, ...] = ()
    engines: tuple[Engine, ...] = ()
    not_done: tuple[NotDone, ...] = ()
    usage: tuple[Snippet, ...] = ()
    provenance: dict[str, dict[str, str]] = Field(default={}, description="heading -> name -> value")

    def describe(self) -> str:
        from eightfold.runtime.report.report_format import quantity

        lines = [self.title, *(f"  {card.label}: {quantity(card.value, card.unit)}" for card in self.cards)]
        for check in self.checks:
            lines.append(f"  {check.name}: {VERDICTS[check.passed]} ({check.seen})")
            lines += [f"    next: {check.remedy}"] if check.remedy else []
        return "\n".join(lines)
