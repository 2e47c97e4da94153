"""`eightfold bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.options import image_size, terminal_width

if TYPE_CHECKING:
    from eightfold.runtime.bench.sweep import Threads


def bench(
    subjects: Annotated[
        list[str],
        typer.Argument(help="Bundles, fixed-size .onnx files, engines and networks."),
    ],
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size to measure; repeat for more. Default: all; 1 of a network.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Image size, SIDE or HEIGHTxWIDTH; repeat for more. Default: all."),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Backend to measure; repeat for more. torch runs networks directly.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Timed seconds per row of the table.")] = 4.0,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N|sweep", help="CPU threads; sweep finds the fastest number. Default: physical cores."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Candidate that speed-ups refer to. Default: the first.")] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Time all from a decoded 1080p frame to the decoded answer.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Measure on a board instead: ssh://[user@]host[:port].")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a network (.safetensors or .pt).")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of outputs of a network.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the table as JSON, after each batch.")
    ] = None,
) -> None:
    """Measure latency by batch size. Candidates alternate in one run; outliers are kept.

    A batch that does not fit into memory, or does not run, is a row that says so.

    Example: eightfold bench runs/demo/bundle --batch 1 --batch 8

    Example: eightfold bench resnet18 pruned resnet18.onnx --backend torch --backend onnxruntime
    """
    from eightfold.files import require_output
    from eightfold.pipeline.bench_models import NetworkOptions
    from eightfold.pipeline.bench_models import bench as measure

    require_output(output, reads=[*subjects, weights])
    table = measure(
        *subjects,
        batches=batch,
        sizes=[image_size(each) for each in size] if size else None,
        backends=backend,
        seconds=seconds,
        threads=_threads(threads),
        baseline=baseline,
        end_to_end=end_to_end,
        device=device,
        networks=NetworkOptions(weights, classes),
        save=output,
    )
    print(table.describe(terminal_width()))
    if output is not None:
        typer.echo(f"wrote {table.save(output)}", err=True)


def _threads(text: str | None) -> Threads:
    from eightfold.errors import UsageError
    from eightfold.runtime.bench.sweep import SWEEP

    if text is None:
        return None
    if text == SWEEP:
        return SWEEP
    if not text.lstrip("-").isdecimal():
        raise UsageError(f"--threads {text!r}", allowed=f"a number of threads, or {SWEEP}")
    return int(text)
