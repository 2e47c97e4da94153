"""`eightfold simplify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simplify(
    path: Annotated[Path, typer.Argument(help="A fixed-size .onnx file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: in place.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds that each simplifier may take.")] = 300.0,
) -> None:
    """Simplify an ONNX graph and check that its answer stays the same.

    Example: eightfold simplify model.onnx -o small.onnx
    """
    from eightfold.export.simplify import simplify_onnx

    done = simplify_onnx(path, output, time_limit_s=time_limit)
    print(f"{done.path}: {done.nodes_before} nodes became {done.nodes_after} ({'; '.join(done.step.notes)})")
