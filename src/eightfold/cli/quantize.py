"""`eightfold quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quantize(
    model: Annotated[Path, typer.Argument(help="The FP32 .onnx file.")],
    ranges: Annotated[Path, typer.Argument(help="What `eightfold calibrate` wrote for it, at any batch size.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the INT8 .onnx file goes.")],
    target: Annotated[
        str, typer.Option(help="cpu-x86, cpu-arm, openvino, tensorrt, tensorrt:8.2, rtx:sm86, tensorrt-dla, ...")
    ] = "cpu-x86",
    keep_float: Annotated[list[str] | None, typer.Option(help="Node to leave in float; repeat for more.")] = None,
    float_outputs: Annotated[bool, typer.Option(help="Leave the layers that make the outputs in float.")] = False,
    bias_correction: Annotated[str, typer.Option(help="none, analytic or empirical; needs images.")] = "none",
    images: Annotated[str | None, typer.Option(help="Calibration images, for corrections.")] = None,
    preprocess: Annotated[Path | None, typer.Option(help="JSON of the Preprocess, for corrections.")] = None,
    measure: Annotated[
        bool, typer.Option(help="On a CPU target, time INT8 against FP32 and say which is faster.")
    ] = True,
) -> None:
    """Write the INT8 form of a graph for a target, from ranges that were calibrated once.

    Example: eightfold quantize model.onnx ranges.json -o model.int8.onnx --target cpu-x86
    """
    from eightfold.calib.images import open_images
    from eightfold.calib.preprocess import Preprocess
    from eightfold.calib.ranges import Ranges
    from eightfold.export.int8_speed import measure_int8
    from eightfold.export.quantize import checked_correction
    from eightfold.export.quantize import quantize as write

    path, report = write(
        model,
        Ranges.load(ranges),
        output,
        target=target,
        keep_float=keep_float or (),
        float_outputs=float_outputs,
        bias_correction=checked_correction(bias_correction),
        images=None if images is None else open_images(images),
        preprocess=None if preprocess is None else Preprocess.load(preprocess),
    )
    print(report.describe())
    if measure and target == "cpu-x86":
        print(measure_int8(model, path).describe())
    typer.echo(f"wrote {path}", err=True)
