"""`eightfold half`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import FilePreprocess, file_inputs
from eightfold.errors import one_of


def half(
    onnx: Annotated[Path, typer.Argument(help="A fixed-size float32 .onnx file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output .onnx file.")],
    kind: Annotated[str, typer.Option("--type", help="float16, or bfloat16 for CPUs (OpenVINO runs it).")] = "float16",
    images: Annotated[
        str | None, typer.Option(help="Images to find nodes that must stay in float32, and to verify.")
    ] = None,
    preprocess: FilePreprocess = None,
    keep_float: Annotated[list[str] | None, typer.Option(help="Node to keep in float32; repeat for more.")] = None,
) -> None:
    """Convert a graph to 16-bit floats. Nodes that need range or precision stay in float32.

    Example: eightfold half model.onnx -o model.fp16.onnx --images photos/ --preprocess preprocess.json
    """
    from eightfold.export.fp16.fp16 import checked_fp16
    from eightfold.export.fp16.fp16_graph import HALF_TYPES
    from eightfold.files import require_output
    from eightfold.onnx_graph.onnx_files import save_onnx

    require_output(output, reads=[onnx, preprocess, images])
    half_type = one_of("type", kind, HALF_TYPES)
    inputs = file_inputs(onnx, images, preprocess)
    made, steps, _ = checked_fp16(onnx, keep_float=keep_float or (), inputs=inputs, kind=half_type)
    print(f"wrote {save_onnx(made, output)}" + ("" if steps else "; not compared: onnxruntime is not installed"))
    for step in steps:
        print("\n".join([f"  cosine {step.cosine:.6f} to the float32 graph", *(f"  {note}" for note in step.notes)]))
