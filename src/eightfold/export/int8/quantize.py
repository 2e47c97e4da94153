"""`quantize`: ranges and a target's rules, applied to a float graph."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from eightfold.calib.images.data_reader import DataReader, open_data
from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.ranges import Ranges
from eightfold.defaults import BIAS_CORRECTION, INT8_FORM, INT8_ROUNDING, INT8_TARGET
from eightfold.errors import CalibrationError, UsageError, one_of
from eightfold.export.int8.adaround import round_adaptively_
from eightfold.export.int8.bias_correction import (
    Correction,
    correct_analytically,
    correct_empirically,
    corrected_layers,
)
from eightfold.export.int8.calibration_inputs import calibration_inputs
from eightfold.export.int8.costly_layers import CostlyLayer, Search, possible_sizes
from eightfold.export.int8.int8_speed import MEASURED_S, Form, Int8Speed, keep_the_faster, measures_target
from eightfold.export.int8.output_errors import LEAST_DB, OutputError
from eightfold.export.int8.qdq import apply_qdq
from eightfold.export.int8.qdq_plan import FloatRules, QdqPlan, plan_qdq
from eightfold.export.int8.quant_report import QuantReport
from eightfold.export.int8.quantize_step import verify_quantized
from eightfold.export.int8.weight_bits import WeightBits, bits_of, checked_bits, with_weight_bits
from eightfold.export.targets import Target, target_named
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path
from eightfold.onnx_graph.fold import prepare_for_int8
from eightfold.onnx_graph.graph import ModelGraph, read_graph
from eightfold.onnx_graph.layers import Layer, layers_of
from eightfold.onnx_graph.qoperator import qoperator_form
from eightfold.runtime.bundle.manifest import Task

if TYPE_CHECKING:
    import onnx


Rounding = Literal["nearest", "adaround"]
FormChoice = Literal["fastest", "qdq", "qoperator"]


CORRECTIONS: tuple[Correction, ...] = get_args(Correction)
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
FORM_CHOICES: tuple[FormChoice, ...] = get_args(FormChoice)


REMEDY = "name layers to leave in float (keep_float=..., --keep-float; --min-sqnr and --max-drop find them)"
COSTLY_RUNS = 4  # on images, to find the layer that costs an output most


class LossyInt8Warning(UserWarning):
    """An output of the INT8 graph, or a group of its channels, has less than 10 dB of signal to noise, or decoded
    answers differ."""


@dataclass(frozen=True)
class QuantOptions:
    """Options of `quantize` beside ranges and target; see there."""

    keep_float: frozenset[str] = frozenset()
    float_outputs: bool = False
    rounding: Rounding = INT8_ROUNDING
    bias_correction: Correction = BIAS_CORRECTION
    form: FormChoice = INT8_FORM
    weight_bits: WeightBits | None = None

    def __post_init__(self) -> None:
        one_of("form", self.form, FORM_CHOICES)
        one_of("bias correction", self.bias_correction, CORRECTIONS)
        one_of("rounding", self.rounding, ROUNDINGS)


def quantize(
    onnx_path: PathLike,
    ranges: Ranges,
    output: PathLike,
    *,
    target: str | Target = INT8_TARGET,
    keep_float: Collection[str] = (),
    float_outputs: bool = False,
    rounding: Rounding = INT8_ROUNDING,
    bias_correction: Correction = BIAS_CORRECTION,
    form: FormChoice = INT8_FORM,
    weight_bits: int | None = None,
    images: ImageSource | None = None,
    preprocess: Preprocess | None = None,
    task: Task | None = None,
) -> tuple[Path, QuantReport]:
    """Write the INT8 form of a graph for a target. With a `form` named, the same inputs give the same bytes.

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
        form: "qdq" writes Q/DQ pairs, "qoperator" (CPU targets only) QLinear operators as this onnxruntime merges
            them; "fastest" times both and FP32 where the target is this machine's CPU, and writes pairs elsewhere.
        weight_bits: 7 or 8 of quantized weights. By default 7 for "cpu-x86" and "openvino" on an x86 without VNNI,
            where sums of 8-bit products saturate, else 8.
        images, preprocess: as for `calibrate`; what the corrections look at. On up to 16 of them the result is
            compared with the float graph; without any, on random values, where nothing is judged but that answers are
            finite.
        task: what the outputs mean; with images, decoded answers are compared as well: boxes that are lost, scores
            that move, classes that change.

    Returns:
        The output's path, and what was done.

    Warns:
        SlowInt8Warning: INT8 was measured to be slower than FP32.
        LossyInt8Warning: an output, or a group of its channels, has less than 10 dB of signal to noise on the images;
            the layer that costs it most is named.

    Raises:
        UnknownNameError: no such target or correction.
        UsageError: a correction without images; `keep_float` names no node; weights of other than 7 or 8 bits.
        CalibrationError: the ranges belong to another network, or the graph cannot be quantized.
        VerificationError: over all images together an output of several numbers has a cosine below 0.5 to the float
            graph, and is not near zero; or an answer is not finite where that is.
    """
    if Path(output).resolve() == Path(onnx_path).resolve():
        raise UsageError(f"{output} is the float graph itself", allowed="another name for the INT8 graph")
    options = QuantOptions(
        frozenset(keep_float), float_outputs, rounding, bias_correction, form, checked_bits(weight_bits)
    )
    source = read_graph(onnx_path)
    ranges.check_graph(source.digest(), str(onnx_path))
    rules = with_weight_bits(target_named(target), options.weight_bits)
    if form == "qoperator" and not rules.qoperator:
        raise UsageError(
            f"the form 'qoperator' for {rules.name}", allowed="Q/DQ pairs there", remedy="leave `form` out"
        )
    work = _Work(ModelGraph(prepare_for_int8(source), source.name), ranges, rules, options)
    corrections = _Corrections(work, None if images is None else _replayable(images), preprocess)
    rounded, shifts = corrections.round_(), corrections.correct_biases_()
    model = work.quantized_model()
    work.require_quantized(str(onnx_path))
    require("onnx", "check models").checker.check_model(model)
    named = rules.name if isinstance(target, Target) else target
    with atomic_path(output) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        written, speed = _finish(onnx_path, temporary, form, rules.name)
        sizes = possible_sizes(work.graph, ranges)
        answers = verify_quantized(
            onnx_path, temporary, corrections.images, preprocess, target=named, sizes=sizes, task=task
        )
    plan = work.plan()
    if answers.decoded is not None and not answers.decoded.fair:
        warnings.warn(LossyInt8Warning(f"{answers.decoded.describe()}; {REMEDY}"), stacklevel=2)
    costly = _costly(work, answers.errors, onnx_path, corrections.images, preprocess)
    return Path(output), QuantReport(
        target=named,
        method=ranges.method,
        quantized=tuple(plan.quantized),
        kept_float=plan.kept_float,
        bias_shifts=shifts,
        rounding=rounded,
        nearest=corrections.rounded_to_nearest(rounded),
        form=written,
        weight_bits=bits_of(rules),
        speed=speed,
        step=answers.step,
        images=ranges.images,
        errors=answers.errors,
        costly=costly,
        decoded=answers.decoded,
        losses=tuple(ranges.describe_losses()),
    )


def _costly(
    work: _Work,
    errors: Sequence[OutputError],
    path: PathLike,
    images: ImageSource | None,
    preprocess: Preprocess | None,
) -> tuple[CostlyLayer, ...]:
    """For each output that lost most of its signal, the layer that costs it most; with a warning."""
    if not any(each.least_db is not None and each.least_db < LEAST_DB for each in errors):
        return ()
    runs = next(iter(calibration_inputs(path, images, preprocess).values()))[:COSTLY_RUNS]
    search = Search(work.graph, work.ranges, work.target, work.plan().quantized)
    found = tuple(each for error in errors if (each := search.costliest(error, runs)) is not None)
    for each in found:
        warnings.warn(LossyInt8Warning(each.describe()), stacklevel=3)
    return found


def _finish(onnx_path: PathLike, output: PathLike, form: FormChoice, target: str) -> tuple[Form, Int8Speed | None]:
    """Bring the Q/DQ graph that was written into the form asked for."""
    if form == "qoperator":
        qoperator_form(output, output)
    if form != "fastest":
        return form, None
    speed = keep_the_faster(onnx_path, output, seconds=MEASURED_S) if measures_target(target) else None
    return speed.form if speed else "qdq", speed


@dataclass(frozen=True, eq=False)
class _Work:
    """A float graph on its way to INT8. Corrections change it before it is quantized."""

    graph: ModelGraph
    ranges: Ranges
    target: Target
    options: QuantOptions

    def plan(self) -> QdqPlan:
        rules = FloatRules(self.options.keep_float, float_outputs=self.options.float_outputs)
        return plan_qdq(self.graph, self.ranges, self.target, rules)

    def require_quantized(self, name: str) -> None:
        """Raise CalibrationError where no layer could run on integers, whatever the options leave in float."""
        plan = plan_qdq(self.graph, self.ranges, self.target)
        if plan.quantized:
            return
        reasons = Counter(plan.kept_float.values()).most_common(3)
        why = ", ".join(f"{reason} ({count})" for reason, count in reasons) or "no layer that the target quantizes"
        raise CalibrationError(
            f"no layer of {name} becomes INT8 for {self.target.name}: {why}",
            allowed=f"a graph with at least one of {', '.join(sorted(self.target.operators))}",
            remedy="use the float graph",
        )

    def quantized_model(self) -> onnx.ModelProto:
        return apply_qdq(self.graph, self.plan())


@dataclass(frozen=True, eq=False)
class _Corrections:
    """Changes to the float graph that make up for what quantization will do to it, in place."""

    work: _Work
    images: ImageSource | None
    preprocess: Preprocess | None

    def rows(self) -> DataReader:
        if self.images is None:
            raise UsageError("a correction without images", allowed="the calibration images")
        return open_data(self.images, self.preprocess, self.work.graph.input_shape[1:], self.work.graph.input_dtype)

    def layers(self) -> list[Layer]:
        return corrected_layers(self.work.graph, frozenset(self.work.plan().quantized))

    def round_(self) -> dict[str, float]:
        if self.work.options.rounding == "nearest":
            return {}
        return round_adaptively_(self.work.graph, self.layers(), self.rows(), levels=self.work.target.weight_levels)

    def rounded_to_nearest(self, adaptively: Collection[str]) -> tuple[str, ...]:
        """The quantized layers with weights that were meant to be rounded adaptively and were not."""
        if self.work.options.rounding == "nearest":
            return ()
        quantized = set(self.work.plan().quantized) - set(adaptively)
        return tuple(layer.name for layer in layers_of(self.work.graph) if layer.name in quantized)

    def correct_biases_(self) -> dict[str, float]:
        how = self.work.options.bias_correction
        if how == "none":
            return {}
        graph, layers = self.work.graph, self.layers()
        if how == "analytic":
            return correct_analytically(graph, layers, self.rows(), levels=self.work.target.weight_levels)
        return correct_empirically(graph, layers, self.rows, lambda g: ModelGraph(self.work.quantized_model(), g.name))


def _replayable(images: ImageSource) -> ImageSource:
    """An iterator can be run through once only; corrections may need the images again."""
    return list(images) if isinstance(images, Iterator) else images
