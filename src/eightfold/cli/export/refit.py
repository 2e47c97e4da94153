"""`eightfold refit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import FilePreprocess, GpuNumber, file_inputs


def refit(
    engine: Annotated[Path, typer.Argument(help="An engine built with --refit or --strip-weights, with its record.")],
    onnx: Annotated[Path, typer.Argument(help="Its graph; with --refit also one with other weights.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output engine; may be the input file.")],
    device: GpuNumber = 0,
    images: Annotated[str | None, typer.Option(help="Images that the engine was built with, if any.")] = None,
    preprocess: FilePreprocess = None,
) -> None:
    """Replace the weights of an engine, on the GPU that runs it. TensorRT 10.0 and later.

    Example: eightfold refit stripped.engine model.onnx -o model.engine
    """
    from eightfold.export.tensorrt.record import EngineRecord
    from eightfold.export.tensorrt.refit import refit_engine
    from eightfold.files import require_output

    require_output(output, reads=[onnx, preprocess, images])
    complete = refit_engine(engine, onnx, output, device=device, inputs=file_inputs(onnx, images, preprocess))
    print(f"{complete}: {EngineRecord.of(complete).describe()}")
