"""`eightfold bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.network import SourceInputs, json_inputs
from eightfold.cli.options import image_size, terminal_width

if TYPE_CHECKING:
    from eightfold.runtime.bench.latency import LatencyTable
    from eightfold.runtime.bench.modes import Mode
    from eightfold.runtime.bench.sweep import Threads

DIFF = "diff"


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
    mode: Annotated[
        str, typer.Option(help="latency, throughput (all cores), or MLPerf: single-stream, offline.")
    ] = "latency",
    device: Annotated[str | None, typer.Option(help="Measure on a board instead: ssh://[user@]host[:port].")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a network (.safetensors or .pt).")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of outputs of a network.")] = None,
    inputs: SourceInputs = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Also write the table: .json, .csv or .md; repeat for more."),
    ] = None,
    max_slowdown: Annotated[
        float, typer.Option(help="For diff: allowed share of speed lost by a row; beyond, exit code 1.")
    ] = 0.03,
) -> None:
    """Measure latency by batch size. Candidates alternate in one run; outliers are kept.

    A batch that does not fit into memory, or does not run, is a row that says so. JSON is written after each batch.

    `eightfold bench diff A.json B.json` compares two tables; the exit code is 1 if a row of B is slower or missing.

    Example: eightfold bench runs/demo/bundle --batch 1 --batch 8

    Example: eightfold bench diff main.json branch.json --max-slowdown 0.05

    Example: eightfold bench resnet18 pruned resnet18.onnx --backend torch --backend onnxruntime
    """
    from eightfold.files import require_output
    from eightfold.pipeline.bench_models import NetworkOptions
    from eightfold.pipeline.bench_models import bench as measure
    from eightfold.runtime.bench.bench import BenchInterrupted
    from eightfold.runtime.bench.table_files import require_form

    if subjects[0] == DIFF and len(subjects) == 3:
        _diff(Path(subjects[1]), Path(subjects[2]), max_slowdown)
        return
    for each in output or ():
        require_output(each, reads=[*subjects, weights])
        require_form(each)
    kept = next((each for each in output or () if each.suffix == ".json"), None)
    try:
        table = measure(
            *subjects,
            batches=batch,
            sizes=[image_size(each) for each in size] if size else None,
            backends=backend,
            seconds=seconds,
            threads=_threads(threads),
            baseline=baseline,
            end_to_end=end_to_end,
            mode=_mode(mode),
            device=device,
            networks=NetworkOptions(weights, classes, json_inputs(inputs)),
            save=kept,
        )
    except BenchInterrupted as stop:
        if stop.table.rows:
            _show(stop.table, output)
        raise
    _show(table, output)


def _show(table: LatencyTable, output: list[Path] | None) -> None:
    from eightfold.runtime.bench.table_files import write_table

    print(table.describe(terminal_width()))
    for each in output or ():
        typer.echo(f"wrote {write_table(table, each)}", err=True)


def _diff(before: Path, after: Path, max_slowdown: float) -> None:
    """Print the differences; exit with 1 where a row became slower or is missing."""
    from eightfold.runtime.bench.compare_tables import diff_tables
    from eightfold.runtime.bench.latency import LatencyTable

    found = diff_tables(LatencyTable.load(before), LatencyTable.load(after), max_slowdown=max_slowdown)
    print(found.describe())
    if found.failed:
        raise typer.Exit(1)


def _mode(text: str) -> Mode:
    from eightfold.runtime.bench.modes import MODES, require_mode

    require_mode(text)
    return next(mode for mode in MODES if mode == text)


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
