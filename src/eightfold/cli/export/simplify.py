"""`eightfold simplify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import FilePreprocess, file_inputs


def simplify(
    path: Annotated[Path, typer.Argument(help="A fixed-size .onnx file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output file. Default: replace the input.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Images to compare on. Default: random values.")] = None,
    preprocess: FilePreprocess = None,
    time_limit: Annotated[float, typer.Option(help="Time limit of each simplifier, in seconds.")] = 300.0,
) -> None:
    """Simplify an ONNX graph. Its outputs are verified to stay the same.

    Example: eightfold simplify model.onnx -o small.onnx
    """
    from eightfold.export.simplify.simplify import simplify_onnx
    from eightfold.files import require_output

    require_output(output, reads=[preprocess, images])
    inputs = file_inputs(path, images, preprocess)
    done = simplify_onnx(path, output, time_limit_s=time_limit, inputs=inputs)
    print(f"{done.path}: {done.nodes_before} nodes became {done.nodes_after}")
    for note in done.step.notes:
        print(f"  {note}")
