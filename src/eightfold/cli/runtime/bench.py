"""`eightfold bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import image_size, terminal_width


def bench(
    bundle: Annotated[Path, typer.Argument(help="A bundle, a fixed-size .onnx file or an .engine.")],
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size to measure; repeat for more. Default: all.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Image size to measure, SIDE or HEIGHTxWIDTH; repeat for more. Default: all."),
    ] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Backend to measure; repeat for more.")] = None,
    seconds: Annotated[float, typer.Option(help="Timed seconds per row of the table.")] = 4.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: the backend's own choice.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Candidate that speed-ups refer to. Default: the first.")] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Time all from a decoded 1080p frame to the decoded answer.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Measure on a board instead: ssh://[user@]host[:port].")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the table as JSON.")] = None,
) -> None:
    """Measure latency by batch size. Candidates take turns in one run, outliers stay in.

    Example: eightfold bench runs/demo/bundle --batch 1 --batch 8
    """
    from eightfold.files import require_output
    from eightfold.runtime.bench.bench import bench as measure

    require_output(output, reads=[bundle])
    table = measure(
        bundle,
        batches=batch,
        sizes=[image_size(each) for each in size] if size else None,
        backends=backend,
        seconds=seconds,
        threads=threads,
        baseline=baseline,
        end_to_end=end_to_end,
        device=device,
    )
    print(table.describe(terminal_width()))
    if output is not None:
        typer.echo(f"wrote {table.save(output)}", err=True)
