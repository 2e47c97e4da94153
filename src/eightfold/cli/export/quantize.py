"""`eightfold quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.defaults import BIAS_CORRECTION, INT8_FORM, INT8_ROUNDING


def quantize(
    model: Annotated[Path, typer.Argument(help="The FP32 .onnx file.")],
    ranges: Annotated[
        Path, typer.Argument(help="What `eightfold calibrate` wrote for it, or a TensorRT calibration cache.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the INT8 .onnx file goes.")],
    target: Annotated[
        str, typer.Option(help="cpu-x86, cpu-arm, openvino, tensorrt, tensorrt:8.2, rtx:sm86, tensorrt-dla, ...")
    ] = "cpu-x86",
    keep_float: Annotated[list[str] | None, typer.Option(help="Node to leave in float; repeat for more.")] = None,
    float_outputs: Annotated[bool, typer.Option(help="Leave the layers that make the outputs in float.")] = False,
    rounding: Annotated[
        str, typer.Option(help="Of weights: nearest, or adaround, which needs images.")
    ] = INT8_ROUNDING,
    bias_correction: Annotated[str, typer.Option(help="none, analytic or empirical; needs images.")] = BIAS_CORRECTION,
    images: Annotated[
        str | None, typer.Option(help="Images to compare on, for corrections, and to score the search with.")
    ] = None,
    preprocess: Annotated[Path | None, typer.Option(help="JSON of the Preprocess of those images.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Points of top-1 that INT8 may lose on the labelled images.")
    ] = None,
    min_sqnr: Annotated[
        float | None, typer.Option(help="Least signal to noise of the outputs in dB; no labels.")
    ] = None,
    form: Annotated[
        str, typer.Option(help="fastest times both forms and FP32 for cpu-x86; qdq or qoperator times nothing.")
    ] = INT8_FORM,
) -> None:
    """Write the INT8 form of a graph for a target. The ranges were calibrated once, for all.

    With --max-drop or --min-sqnr, the layers that INT8 harms most are given back to float, one after another, until the
    bound holds. The scores are kept beside the output, so that an interrupted search goes on; a plot is drawn there.

    Example: eightfold quantize model.onnx ranges.json -o model.int8.onnx --target cpu-x86
    """
    from eightfold.calib.images.images import open_images
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.calib.trt_cache import read_ranges
    from eightfold.errors import one_of
    from eightfold.export.int8.mixed_precision import SearchBound, search_files
    from eightfold.export.int8.quantize import CORRECTIONS, FORM_CHOICES, ROUNDINGS
    from eightfold.export.int8.quantize import quantize as write
    from eightfold.files import require_output

    require_output(output, reads=[model, ranges, preprocess, images])
    found = read_ranges(ranges, model)
    chosen_form, chosen_rounding = one_of("form", form, FORM_CHOICES), one_of("rounding", rounding, ROUNDINGS)
    correction = one_of("bias correction", bias_correction, CORRECTIONS)
    chosen = None if images is None else open_images(images)
    rules = None if preprocess is None else Preprocess.load(preprocess)
    bound = SearchBound(max_drop=max_drop, min_sqnr_db=min_sqnr)
    kept = tuple(keep_float or ())
    if bound.is_set:
        measure = chosen_form == "fastest"
        search = search_files(model, found, output, bound, chosen, rules, target=target, measure=measure)
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
        images=chosen,
        preprocess=rules,
    )
    print(report.describe())
    typer.echo(f"wrote {path}", err=True)
