"""`eightfold compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[str, typer.Argument(help="An .onnx file, or BUNDLE:ARTIFACT.")],
    second: Annotated[str, typer.Argument(help="Likewise, with the same inputs.")],
    worst: Annotated[int, typer.Option(help="Show only so many layers, those with the lowest cosine. 0: all.")] = 20,
    plot: Annotated[Path | None, typer.Option(help="Also write a plot of the error along the network.")] = None,
) -> None:
    """Run two artifacts on the same inputs and show where they differ, layer by layer.

    Example: eightfold compare fp32.onnx int8.onnx --worst 10
    """
    from eightfold.export.compare import compare_artifacts, plot_comparison

    comparison = compare_artifacts(first, second)
    print(comparison.describe(worst))
    if plot is not None:
        typer.echo(f"wrote {plot_comparison(comparison, plot)}", err=True)
