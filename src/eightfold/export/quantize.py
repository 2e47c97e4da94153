"""`quantize`: ranges and a target's rules, applied to a float graph."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from eightfold.calib.graph import Graph, read_graph
from eightfold.calib.layers import Layer
from eightfold.calib.preprocess import Preprocess
from eightfold.calib.ranges import Ranges
from eightfold.calib.rows import Rows, rows_of
from eightfold.errors import UnknownNameError, UsageError
from eightfold.export.adaround import round_adaptively_
from eightfold.export.bias_correction import (
    Correction,
    correct_analytically,
    correct_empirically,
    corrected_layers,
)
from eightfold.export.fold import prepare
from eightfold.export.qdq import apply_qdq
from eightfold.export.qdq_plan import FloatRules, QdqPlan, plan_qdq
from eightfold.export.targets import Target, target_named
from eightfold.extras import require
from eightfold.files import PathLike, write_bytes
from eightfold.values import Frozen

if TYPE_CHECKING:
    import onnx


Rounding = Literal["nearest", "adaround"]


class QuantReport(Frozen):
    """What `quantize` did.

    Args:
        target: the target asked for.
        method: how the ranges were chosen.
        quantized: labels of the nodes that run on integers.
        kept_float: label of a node that could have been quantized -> why it was not.
        bias_shifts: layer -> root mean square of what bias correction added to its biases.
        rounding: layer -> expected squared error of its outputs after AdaRound, as a share of rounding to nearest.
    """

    target: str
    method: str
    quantized: tuple[str, ...]
    kept_float: dict[str, str]
    bias_shifts: dict[str, float] = Field(default_factory=dict)
    rounding: dict[str, float] = Field(default_factory=dict)

    def describe(self) -> str:
        lines = [f"{len(self.quantized)} layers in INT8 for {self.target}, {len(self.kept_float)} kept in float"]
        lines += [f"  {name}: {reason}" for name, reason in self.kept_float.items()]
        if self.bias_shifts:
            name = max(self.bias_shifts, key=lambda key: self.bias_shifts[key])
            lines.append(
                f"  {len(self.bias_shifts)} biases corrected, the most: {name} by {self.bias_shifts[name]:.3g}"
            )
        if self.rounding:
            mean = sum(self.rounding.values()) / len(self.rounding)
            lines.append(
                f"  {len(self.rounding)} layers rounded adaptively: {mean:.0%} of the error of rounding to nearest"
            )
        return "\n".join(lines)


def checked_correction(name: str) -> Correction:
    """Raises UnknownNameError for what is not a bias correction."""
    for correction in get_args(Correction):
        if correction == name:
            found: Correction = correction
            return found
    raise UnknownNameError.of("bias correction", name, get_args(Correction))


def checked_rounding(name: str) -> Rounding:
    """Raises UnknownNameError for what is not a way of rounding."""
    for rounding in get_args(Rounding):
        if rounding == name:
            found: Rounding = rounding
            return found
    raise UnknownNameError.of("rounding", name, get_args(Rounding))


@dataclass(frozen=True)
class QuantOptions:
    """What `quantize` is asked for beside ranges and target; see there."""

    keep_float: frozenset[str] = frozenset()
    float_outputs: bool = False
    rounding: Rounding = "nearest"
    bias_correction: Correction = "none"

    def __post_init__(self) -> None:
        checked_correction(self.bias_correction)
        checked_rounding(self.rounding)


def quantize(
    onnx_path: PathLike,
    ranges: Ranges,
    output: PathLike,
    *,
    target: str | Target = "cpu-x86",
    keep_float: Collection[str] = (),
    float_outputs: bool = False,
    rounding: Rounding = "nearest",
    bias_correction: Correction = "none",
    images: Any = None,
    preprocess: Preprocess | None = None,
) -> tuple[Path, QuantReport]:
    """Write the INT8 form of a graph for a target. The same inputs give the same bytes.

    Args:
        onnx_path: the FP32 graph, of any batch size.
        ranges: of that network; made at any batch size.
        output: where the quantized graph goes. Replaced only when all went well.
        target: "cpu-x86", "cpu-arm", "openvino", "tensorrt", "tensorrt:8.2", "rtx:sm86", "tensorrt-dla", ...;
            or rules of your own.
        keep_float: names of nodes to leave in float.
        float_outputs: also leave the layers whose result leaves the graph in float: a little slower, and the outputs
            are not rounded to 256 levels. What decodes their results stays float in any case.
        rounding: of weights, "nearest" or "adaround", which looks at `images` in one pass.
        bias_correction: "analytic" takes back what the weights' rounding adds on average, in one pass over `images`;
            "empirical" what is measured in the quantized network, one partial pass per layer.
        images, preprocess: as for `calibrate`; what the corrections look at.

    Returns:
        The output's path, and what was done.

    Raises:
        UnknownNameError: no such target or correction.
        UsageError: a correction without images; `keep_float` names no node.
        CalibrationError: the ranges belong to another network, or the graph cannot be quantized.
    """
    if Path(output).resolve() == Path(onnx_path).resolve():
        raise UsageError(f"{output} is the float graph itself", allowed="another name for the INT8 graph")
    options = QuantOptions(frozenset(keep_float), float_outputs, rounding, bias_correction)
    source = read_graph(onnx_path)
    ranges.check_graph(source.digest(), str(onnx_path))
    rules = target_named(target)
    work = _Work(Graph(prepare(source), source.name), ranges, rules, options)
    corrections = _Corrections(work, None if images is None else _replayable(images), preprocess)
    rounded, shifts = corrections.round_(), corrections.correct_biases_()
    model = work.quantized_model()
    require("onnx", "check models").checker.check_model(model)
    write_bytes(output, model.SerializeToString(deterministic=True))
    name = rules.name if isinstance(target, Target) else target
    return Path(output), _report(work.plan(), name, ranges, shifts, rounded)


@dataclass(frozen=True, eq=False)
class _Work:
    """A float graph on its way to INT8. Corrections change it before it is quantized."""

    graph: Graph
    ranges: Ranges
    target: Target
    options: QuantOptions

    def plan(self) -> QdqPlan:
        rules = FloatRules(self.options.keep_float, float_outputs=self.options.float_outputs)
        return plan_qdq(self.graph, self.ranges, self.target, rules)

    def quantized_model(self) -> onnx.ModelProto:
        return apply_qdq(self.graph, self.plan())


@dataclass(frozen=True, eq=False)
class _Corrections:
    """Changes to the float graph that make up for what quantization will do to it, in place."""

    work: _Work
    images: Any
    preprocess: Preprocess | None

    def rows(self) -> Rows:
        if self.images is None:
            raise UsageError("a correction was asked for without images", allowed="the calibration images")
        return rows_of(self.images, self.preprocess, self.work.graph.input_shape[1:])

    def layers(self) -> list[Layer]:
        return corrected_layers(self.work.graph, frozenset(self.work.plan().quantized))

    def round_(self) -> dict[str, float]:
        if self.work.options.rounding == "nearest":
            return {}
        return round_adaptively_(self.work.graph, self.layers(), self.rows())

    def correct_biases_(self) -> dict[str, float]:
        how = self.work.options.bias_correction
        if how == "none":
            return {}
        graph, layers = self.work.graph, self.layers()
        if how == "analytic":
            return correct_analytically(graph, layers, self.rows())
        return correct_empirically(graph, layers, self.rows, lambda g: Graph(self.work.quantized_model(), g.name))


def _replayable(images: Any) -> Any:
    """An iterator can be run through once only; corrections may need the images again."""
    return list(images) if hasattr(images, "__next__") else images


def _report(
    plan: QdqPlan, target: str, ranges: Ranges, shifts: dict[str, float], rounded: dict[str, float]
) -> QuantReport:
    return QuantReport(
        target=target,
        method=ranges.method,
        quantized=tuple(plan.quantized),
        kept_float=plan.kept_float,
        bias_shifts=shifts,
        rounding=rounded,
    )
