"""`eightfold quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import FilePreprocess
from eightfold.defaults import BIAS_CORRECTION, INT8_FORM, INT8_ROUNDING
from eightfold.errors import UsageError


def quantize(
    model: Annotated[Path, typer.Argument(help="The FP32 .onnx file.")],
    ranges: Annotated[Path, typer.Argument(help="Ranges by `eightfold calibrate`, or a TensorRT calibration cache.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output .onnx file.")],
    target: Annotated[
        str, typer.Option(help="cpu-x86, cpu-arm, openvino, tensorrt[:8.2], rtx:sm86, tensorrt-dla.")
    ] = "cpu-x86",
    keep_float: Annotated[list[str] | None, typer.Option(help="Node to keep in float; repeat for more.")] = None,
    latency_report: Annotated[
        Path | None, typer.Option(help="latency.json of a plan; its layers stay in float.")
    ] = None,
    float_outputs: Annotated[bool, typer.Option(help="Keep the layers that make the outputs in float.")] = False,
    rounding: Annotated[
        str, typer.Option(help="Rounding of weights: nearest, or adaround (needs images).")
    ] = INT8_ROUNDING,
    bias_correction: Annotated[
        str, typer.Option(help="Bias correction: none, analytic or empirical (needs images).")
    ] = BIAS_CORRECTION,
    images: Annotated[
        str | None, typer.Option(help="Images for comparison, corrections and the search's score.")
    ] = None,
    preprocess: FilePreprocess = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest loss of top-1 in points, on the labelled images.")
    ] = None,
    min_sqnr: Annotated[float | None, typer.Option(help="Least SQNR of the outputs in dB; needs no labels.")] = None,
    task: Annotated[str, typer.Option(help="Decoder or task JSON: compare decoded answers on the images.")] = "",
    form: Annotated[str, typer.Option(help="fastest (measured, cpu-x86), qdq or qoperator.")] = INT8_FORM,
    weight_bits: Annotated[int | None, typer.Option(help="7 or 8; by default 7 where this CPU lacks VNNI.")] = None,
) -> None:
    """Quantize a graph to INT8 for a target. The ranges hold for all targets.

    With --max-drop or --min-sqnr, the layers that INT8 harms most return to float, one after another, until the bound
    holds. Scores and a plot are kept beside the output; after an interruption, the same command resumes.

    Example: eightfold quantize model.onnx ranges.json -o model.int8.onnx --target cpu-x86
    """
    from eightfold.calib.images.images import open_images
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.calib.trt_cache import read_ranges
    from eightfold.cli.options import require_both, task_named
    from eightfold.errors import one_of
    from eightfold.export.int8.quantize import CORRECTIONS, FORM_CHOICES, ROUNDINGS
    from eightfold.export.int8.quantize import quantize as write
    from eightfold.export.int8.search_files import SearchBound, search_files
    from eightfold.files import require_output

    require_output(output, reads=[model, ranges, preprocess, images])
    require_both(images, preprocess)
    found = read_ranges(ranges, model)
    chosen_form, chosen_rounding = one_of("form", form, FORM_CHOICES), one_of("rounding", rounding, ROUNDINGS)
    correction = one_of("bias correction", bias_correction, CORRECTIONS)
    chosen = None if images is None else open_images(images)
    rules = None if preprocess is None else Preprocess.load(preprocess)
    bound = SearchBound(max_drop=max_drop, min_sqnr_db=min_sqnr)
    kept = (*(keep_float or ()), *_planned_float(model, latency_report))
    if bound.is_set:
        measure = chosen_form == "fastest"
        search = search_files(
            model, found, output, bound, chosen, rules, target=target, weight_bits=weight_bits, measure=measure
        )
        print(search.describe())
        kept += search.steps[-1].kept_float
    path, report = write(
        model,
        found,
        output,
        target=target,
        keep_float=kept,
        float_outputs=float_outputs,
        rounding=chosen_rounding,
        bias_correction=correction,
        form=chosen_form,
        weight_bits=weight_bits,
        images=chosen,
        preprocess=rules,
        task=task_named(task) if task else None,
    )
    print(report.describe())
    typer.echo(f"wrote {path}", err=True)


def _planned_float(model: Path, latency_report: Path | None) -> tuple[str, ...]:
    """Layers that a plan within a latency budget keeps in float."""
    if latency_report is None:
        return ()
    from eightfold.compress.latency.report import LatencyReport
    from eightfold.export.int8.float_layers import labels_at

    report = LatencyReport.load(latency_report)
    if not report.weighted_layers:
        raise UsageError(
            f"{latency_report} chooses no precisions", allowed="a report of eightfold prune --latency --precision mixed"
        )
    return tuple(labels_at(model, report.float_places, report.weighted_layers))
