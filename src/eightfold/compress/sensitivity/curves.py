"""Sensitivity curves: the loss of a network when one group of channels is pruned alone, group by group and ratio by
ratio; by a metric, or by how far outputs move on images without labels.

Each point really changes the shapes of a copy. Points are written to a JSON file one by one: a run that is killed goes
on behind the last, and files of several runs over different ratios or groups can be merged.
"""

from __future__ import annotations

import copy
import fnmatch
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import layer_scores
from eightfold.compress.modules.output_kinds import kinds_of
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import round_count, top
from eightfold.compress.surgery.surgery import applied
from eightfold.compress.trace.groups import ChannelGraph, Group
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs, ImageBatches, Metric
from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.export.verify.module_runs import evaluating
from eightfold.files import write_text
from eightfold.progress import track

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Losses = dict[str, dict[float, float]]


@dataclass(frozen=True)
class CurveOptions:
    """
    Attributes:
        ratios: shares of a group's channels that go; what they round to is measured once.
        score: decides which channels go, from weights alone.
        multiple: of widths.
        groups: names of groups (with wildcards); all free ones by default.
    """

    ratios: Sequence[float] = RATIOS
    score: str = "l2"
    multiple: int = 8
    groups: Sequence[str] = ("*",)

    def __post_init__(self) -> None:
        if not self.ratios or not all(0 < ratio < 1 for ratio in self.ratios):
            raise UsageError(f"ratios {list(self.ratios)}", allowed="shares to remove, above 0 and below 1")


@dataclass(frozen=True)
class CurvePoint:
    """A group, the share of its channels that goes, and the plan that removes them."""

    group: str
    share: float
    plan: PrunePlan


@dataclass(frozen=True)
class Measure:
    """The metric of a copy of the model, pruned by a point's plan."""

    model: nn.Module
    metric: Metric

    def __call__(self, point: CurvePoint) -> float:
        with applied(copy.deepcopy(self.model), point.plan) as narrow:
            return self.metric(narrow)


Spread = Callable[[Measure, Sequence[CurvePoint]], Iterator[tuple[CurvePoint, float]]]


def _here(measure: Measure, points: Sequence[CurvePoint]) -> Iterator[tuple[CurvePoint, float]]:
    for point in points:
        yield point, measure(point)


@dataclass(frozen=True)
class SensitivityCurves:
    """Loss of each group at each ratio that goes; ratios are those really removed.

    Attributes:
        baseline: the metric of the whole network; 1 for output distances.
        losses: group -> {ratio: loss}; a loss is the share of the metric that is lost.
        multiple: of widths.
    """

    baseline: float
    losses: Losses
    multiple: int = 8

    def save(self, path: Path) -> None:
        """Write as JSON."""
        losses = {name: {str(ratio): loss for ratio, loss in row.items()} for name, row in self.losses.items()}
        content = {"baseline": self.baseline, "multiple": self.multiple, "losses": losses}
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> SensitivityCurves:
        """Raises ModelError where the file holds no curves."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            losses = {
                str(name): {float(key): float(loss) for key, loss in row.items()}
                for name, row in found["losses"].items()
            }
            return cls(float(found["baseline"]), losses, int(found["multiple"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} holds no sensitivity curves ({error})", remedy="remove it") from None

    def ratios_by_loss(self, loss: float) -> dict[str, float]:
        """The largest share of each group that goes at a loss of at most `loss`, alone.

        Between the last point that holds and the next one the curve is taken as linear; groups whose first point is
        above `loss` are left out.
        """
        found = {name: _ratio_at(row, loss) for name, row in self.losses.items()}
        return {name: ratio for name, ratio in found.items() if ratio > 0}

    def describe(self) -> str:
        """A line for each group, the most sensitive first."""
        order = sorted(self.losses, key=lambda name: -max(self.losses[name].values(), default=0))
        lines = [f"baseline {self.baseline:.4g}; share of it that is lost, by share of channels that go"]
        for name in order:
            points = "  ".join(f"{ratio:.2f}: {loss:+.3f}" for ratio, loss in sorted(self.losses[name].items()))
            lines.append(f"  {name}  {points}")
        return "\n".join(lines)


def _ratio_at(row: Mapping[float, float], most: float) -> float:
    points = sorted(row.items())
    for place in range(len(points) - 1, -1, -1):
        ratio, loss = points[place]
        if loss <= most:
            if place == len(points) - 1:
                return ratio
            wider, more = points[place + 1]
            return ratio + (most - loss) * (wider - ratio) / (more - loss)
    return 0.0


def sensitivity_curves(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    metric: Metric | None = None,
    images: ImageBatches | None = None,
    options: CurveOptions | None = None,
    output: Path | None = None,
    spread: Spread | None = None,
) -> SensitivityCurves:
    """Measure curves. The model is left as it is.

    Args:
        metric: of a model, more is better; or
        images: batches of model inputs without labels, on which outputs are compared with the whole network's.
        options: see CurveOptions.
        output: JSON file that is written after each point, and read first.
        spread: carries the points out, on a cluster for example (`ray_spread`); here, one after the other, by default.

    Returns:
        The curves, groups and ratios in order, however the points were spread.

    Raises:
        UsageError: both or neither of `metric` and `images`, or a baseline of 0.
        UnknownNameError: a pattern that no group has.
        ModelError: `output` holds something else.
    """
    options = options or CurveOptions()
    if metric is None and images is not None:
        metric = _agreement(model, images)
    elif metric is None or images is not None:
        raise UsageError("a metric and images both given or both missing", allowed="one of them")
    graph = trace(model, example_inputs)
    groups = _chosen(graph, options)
    scores = layer_scores(Evidence(model, graph), options.score)
    curves = _started(model, metric, options, output)
    points = [
        CurvePoint(
            group.id,
            _share(group, count),
            PrunePlan.from_graph(graph, {group.id: top(scores[group.id].mean(0), count)}),
        )
        for group in groups
        for count in _counts(group, options)
        if _share(group, count) not in curves.losses.get(group.id, {})
    ]
    found = (spread or _here)(Measure(model, metric), points)
    for point, value in track(found, "measuring sensitivity", total=len(points)):
        curves.losses.setdefault(point.group, {})[point.share] = 1 - value / curves.baseline
        if output is not None:
            curves.save(output)
    ordered = merge_curves([curves])
    if output is not None:
        ordered.save(output)
    return ordered


def _agreement(model: nn.Module, images: ImageBatches) -> Metric:
    batches = [args if isinstance(args, tuple) else (args,) for args in images]
    with evaluating(model), torch.no_grad():
        wanted = [model(*args) for args in batches]
    kinds = kinds_of(wanted)

    def of(other: nn.Module) -> float:
        with evaluating(other), torch.no_grad():
            return kinds.agreement(wanted, [other(*args) for args in batches])

    return of


def _chosen(graph: ChannelGraph, options: CurveOptions) -> list[Group]:
    for pattern in options.groups:
        if not any(fnmatch.fnmatch(group.id, pattern) for group in graph.free):
            raise UnknownNameError.of("group", pattern, [group.id for group in graph.free])
    return [
        group
        for group in graph.free
        if group.prunable(options.multiple) and any(fnmatch.fnmatch(group.id, each) for each in options.groups)
    ]


def _counts(group: Group, options: CurveOptions) -> list[int]:
    counts = {round_count(group.width * (1 - ratio), group, options.multiple) for ratio in options.ratios}
    return sorted(counts - {group.width}, reverse=True)


def _share(group: Group, count: int) -> float:
    """Share of the group's channels that go, with as many digits as the file has."""
    return round(1 - count / group.width, 6)


def _started(model: nn.Module, metric: Metric, options: CurveOptions, output: Path | None) -> SensitivityCurves:
    if output is not None and output.is_file():
        found = SensitivityCurves.load(output)
        if found.multiple != options.multiple:
            raise UsageError(
                f"{output} has a multiple of {found.multiple}", allowed=f"{options.multiple}, as asked for"
            )
        return found
    baseline = metric(model)
    if not baseline > 0:
        raise UsageError(f"the whole network's metric is {baseline:g}", allowed="above 0", remedy="check the data")
    return SensitivityCurves(baseline, {}, options.multiple)


def merge_curves(parts: Sequence[SensitivityCurves]) -> SensitivityCurves:
    """Curves of several runs over the same network and data, the same whichever way the points were split.

    Raises:
        UsageError: none, or baselines or multiples that differ.
    """
    if not parts or any(
        abs(part.baseline - parts[0].baseline) > 1e-6 or part.multiple != parts[0].multiple for part in parts
    ):
        raise UsageError("curves of different networks or data", allowed="one baseline and multiple")
    losses: Losses = {}
    for part in parts:
        for name, row in part.losses.items():
            losses.setdefault(name, {}).update(row)
    ordered = {name: dict(sorted(losses[name].items())) for name in sorted(losses)}
    return SensitivityCurves(parts[0].baseline, ordered, parts[0].multiple)
