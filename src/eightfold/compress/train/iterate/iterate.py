"""Iterative pruning: prune a little, train, measure, and again; stops at a drop, and resumes.

After each step the network is saved with its plan against the original, so that a killed run goes on behind the last
finished step, and the network returned is the last one within the bound, not the one that broke it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from eightfold.compress.check import checked
from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import layer_scores
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.plan_changes import merge_plans
from eightfold.compress.plan.select import matches, top
from eightfold.compress.surgery.artifacts import PLAN, load_pruned, save_pruned
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.groups import ChannelGraph, Group
from eightfold.compress.trace.macs import count_parameters
from eightfold.compress.trace.trace import trace
from eightfold.compress.train.devices import wait_for_others
from eightfold.compress.train.iterate.options import IterateOptions, StepTraining
from eightfold.compress.train.iterate.steps import WidthStep, width_steps
from eightfold.compress.train.processes import is_main
from eightfold.compress.types import ExampleInputs, Metric
from eightfold.errors import ModelError, UsageError
from eightfold.files import PathLike, write_text

ROWS = "iterate.json"


@dataclass(frozen=True)
class StepRow:
    """One step's result; step 0 is the original.

    Attributes:
        pruned, recovered: the metric before and after training.
        latency_ms: measured after the step, None where nothing was measured.
        within: the metric is within the bound.
    """

    step: int
    keep_ratio: float
    parameters: int
    macs: int
    pruned: float
    recovered: float
    latency_ms: float | None
    within: bool


@dataclass(frozen=True)
class Iterated:
    """Result: the last network within the bound, its plan against the original, and every step's row."""

    model: nn.Module
    plan: PrunePlan
    rows: tuple[StepRow, ...]
    stopped: bool

    def describe(self) -> str:
        """A table, and why the run ended."""
        lines = ["step   keep  parameters        MACs  pruned  recovered  latency"]
        for row in self.rows:
            shown = "-" if row.latency_ms is None else f"{row.latency_ms:.2f} ms"
            lines.append(
                f"{row.step:>4}  {row.keep_ratio:5.3f}  {row.parameters:>10,}  {row.macs:>10,}  {row.pruned:6.4f}  "
                f"{row.recovered:9.4f}  {shown}"
            )
        if self.stopped:
            kept = [row.step for row in self.rows if row.within][-1]
            lines.append(f"stopped: step {self.rows[-1].step} fell below the bound; the network of step {kept} is kept")
        return "\n".join(lines)


Finetune = Callable[[nn.Module, StepTraining], object]


@dataclass
class _Run:
    original: nn.Module
    example_inputs: Any
    finetune: Finetune
    evaluate: Metric
    directory: Path
    options: IterateOptions
    latency: Metric | None
    rows: list[StepRow] = field(default_factory=list)

    def run(self) -> Iterated:
        graph = trace(self.original, self.example_inputs)
        steps = width_steps(
            self._groups(graph), steps=self.options.steps, keep_ratio=self.options.keep_ratio,
            multiple=self.options.multiple,
        )  # fmt: skip
        self._resume(steps)
        if not self.rows:
            self._first(graph)
        self._check_first(graph)
        stopped = not self.rows[-1].within
        model, plan = self._load(self.rows[-1].step)
        for step in steps[len(self.rows) - 1 :]:
            if stopped:
                break
            plan = self._take(model, plan, step, len(steps))
            stopped = not self.rows[-1].within
        last = [row.step for row in self.rows if row.within][-1]
        model, plan = self._load(last)
        return Iterated(model, plan, tuple(self.rows), stopped)

    def _groups(self, graph: ChannelGraph) -> list[Group]:
        return [
            group
            for group in graph.free
            if group.prunable(self.options.multiple) and not any(matches(group, each) for each in self.options.ignore)
        ]

    def _first(self, graph: ChannelGraph) -> None:
        self._save(self.original, PrunePlan.from_graph(graph, {}), 0)
        metric = self.evaluate(self.original)
        self._add(self._row(self.original, 0, 1.0, metric, metric))

    def _check_first(self, graph: ChannelGraph) -> None:
        stored = PrunePlan.load(self._folder(0) / PLAN)
        if stored.shapes != dict(graph.shapes):
            raise ModelError(f"{self.directory} is of another network", remedy="choose another folder, or remove it")

    def _take(self, model: nn.Module, plan: PrunePlan, step: WidthStep, steps: int) -> PrunePlan:
        graph = trace(model, self.example_inputs)
        local = checked(model, self.example_inputs, PrunePlan.from_graph(graph, self._kept(model, graph, step)), graph)
        apply_plan_to_module(model, local)
        merged = merge_plans(plan, local)
        pruned = self.evaluate(model)
        number = len(self.rows)
        self.finetune(model, self.options.training(number, steps, self.directory / f"step-{step.number}.safetensors"))
        row = self._row(model, step.number, step.keep_ratio, pruned, self.evaluate(model))
        self._save(model, merged, step.number)
        self._add(row)
        if is_main():
            (self.directory / f"step-{step.number}.safetensors").unlink(missing_ok=True)
        return merged

    def _save(self, model: nn.Module, plan: PrunePlan, step: int) -> None:
        """One process writes, and the others wait for it."""
        if is_main():
            save_pruned(model, plan, self._folder(step))
        wait_for_others()

    def _kept(self, model: nn.Module, graph: ChannelGraph, step: WidthStep) -> dict[str, Any]:
        """The best channels of each group, as many as the step leaves; groups are paired in order, since the ids of
        blocks behind others in a concatenation change with widths."""
        scores = layer_scores(Evidence(model, graph), self.options.score)
        originals = [group.id for group in trace(self.original, self.example_inputs).groups]
        if len(originals) != len(graph.groups):
            raise ModelError("the network's groups of channels changed while it was pruned", remedy="report this")
        kept = {}
        for name, group in zip(originals, graph.groups, strict=True):
            count = step.counts.get(name, group.width)
            if not group.frozen and count < group.width:
                kept[group.id] = top(np.asarray(scores[group.id].mean(0)), count)
        return kept

    def _row(self, model: nn.Module, step: int, keep: float, pruned: float, recovered: float) -> StepRow:
        macs = sum(layer.macs for layer in trace(model, self.example_inputs).layers)
        latency = None if self.latency is None else self.latency(model)
        original = self.rows[0].recovered if self.rows else recovered
        within = self.options.holds(original, recovered)
        return StepRow(step, keep, count_parameters(model), macs, pruned, recovered, latency, within)

    def _folder(self, step: int) -> Path:
        return self.directory / f"step-{step}"

    def _load(self, step: int) -> tuple[nn.Module, PrunePlan]:
        folder = self._folder(step)
        return load_pruned(lambda: copy.deepcopy(self.original), folder), PrunePlan.load(folder / PLAN)

    def _add(self, row: StepRow) -> None:
        self.rows.append(row)
        if is_main():
            write_text(self.directory / ROWS, json.dumps([asdict(each) for each in self.rows], indent=1) + "\n")

    def _resume(self, steps: Sequence[WidthStep]) -> None:
        path = self.directory / ROWS
        found = path.is_file()
        wait_for_others()  # before the first one writes it
        if not found:
            return
        try:
            self.rows = [StepRow(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path} is damaged ({error})", remedy="remove the folder to start again") from None
        numbers = [0, *(step.number for step in steps)]
        if [row.step for row in self.rows] != numbers[: len(self.rows)]:
            raise UsageError(
                f"{path} has the steps {[row.step for row in self.rows]}",
                allowed=f"those of these options: {numbers}",
                remedy="choose another folder, or the options of the run before",
            )


def iterate(
    model: nn.Module,
    example_inputs: ExampleInputs,
    finetune: Finetune,
    evaluate: Metric,
    directory: PathLike,
    *,
    options: IterateOptions | None = None,
    latency: Metric | None = None,
) -> Iterated:
    """Prune in many small steps and train after each. `model` is left as it is.

    Args:
        example_inputs: what the model is called with.
        finetune: trains the given model in place as the `StepTraining` says.
        evaluate: the metric of a model, more is better.
        directory: steps go there; a run that was killed goes on behind its last finished step.
        options: see IterateOptions.
        latency: measures a model in milliseconds, for the table and the plot.

    Returns:
        The last network within the bound, and a row for each step.

    Raises:
        UsageError: options that change nothing, or other ones than those of the run in `directory`.
        ModelError: `directory` is of another network.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    run = _Run(model, example_inputs, finetune, evaluate, path, options or IterateOptions(), latency)
    return run.run()
