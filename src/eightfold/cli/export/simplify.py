"""`eightfold simplify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import file_inputs


def simplify(
    path: Annotated[Path, typer.Argument(help="A fixed-size .onnx file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: in place.")] = None,
    images: Annotated[str | None, typer.Option(help="Images to compare on. Default: random values.")] = None,
    preprocess: Annotated[Path | None, typer.Option(help="JSON of the Preprocess of those images.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds that each simplifier may take.")] = 300.0,
) -> None:
    """Simplify an ONNX graph. That its answer stays the same is checked.

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
