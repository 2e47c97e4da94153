"""`eightfold compress`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eightfold.cli.network import (
    Source,
    SourceClasses,
    SourceInputs,
    SourcePreprocess,
    SourceSize,
    json_inputs,
)
from eightfold.cli.options import Seed, image_size, task_named, typed
from eightfold.cli.pipeline.run import show_end, show_preview, write_result

if TYPE_CHECKING:
    from eightfold.pipeline.run import RunResult

Precision = Literal["fp32", "int8", "mixed"]


def compress(
    model: Source,
    images: Annotated[str, typer.Option(help="Unlabelled images of the network's domain: a folder or a list.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory: bundle/, report.html, recipe.yaml.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Target: cpu-x86, rtx:sm86, ...; repeat for more. Default: cpu-x86.")
    ] = None,
    keep: Annotated[float, typer.Option(min=0.01, max=1, help="Mean share of widths to keep, at its MACs.")] = 0.5,
    latency: Annotated[str | None, typer.Option(help="Latency to stay under instead of --keep: 0.5x, or 12ms.")] = None,
    precision: Annotated[Precision, typer.Option(help="Precision of --latency: fp32, int8 or mixed.")] = "int8",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of --latency. Default: 2.")] = None,
    labels: Annotated[str | None, typer.Option(help="Labelled test images: FOLDER/LABEL/*.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled test images: a COCO .json or a YOLO .yaml.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Limit of recovery in minutes. Default: 20; 0 with --keep 1.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Points that may be lost. Default: 1 on labels, 10 of the agreement.")
    ] = None,
    min_speedup: Annotated[float, typer.Option(help="Times as fast as the original, at every batch.")] = 1.0,
    batch: Annotated[
        list[int] | None, typer.Option(help="Images per run; repeat. Default: 1 and 8, or the file's own.")
    ] = None,
    size: SourceSize = (None),
    weights: Annotated[Path | None, typer.Option(help="Trained weights of a named network.")] = None,
    classes: SourceClasses = None,
    inputs: SourceInputs = None,
    task: Annotated[str, typer.Option(help="Decoder name or task JSON file. Default: the source's own.")] = "",
    preprocess: SourcePreprocess = None,
    seed: Seed = 0,
    seconds: Annotated[float, typer.Option(help="Timed seconds for each row of the latency table.")] = 3.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the steps and the reason for each; run nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Exit with 0 although the result is bad.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.")] = None,
) -> None:
    """Prune, quantize and measure a network on unlabelled images. The first line is the verdict.

    Where anything is pruned, recovery trains on the images for 20 minutes at most; --minutes 0 leaves it out.
    Answers are compared with labels where there are any, else with the original's own. A result that is not faster, or
    whose answers differ too much, is kept, and the exit code is 1. After an interruption, the same command resumes.

    Example: eightfold compress yolo.onnx --images photos --target cpu-x86 --target rtx:sm86 --keep 0.5 -o out
    """
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.cli.pipeline.estimates import Estimates
    from eightfold.errors import UsageError
    from eightfold.files import require_output
    from eightfold.pipeline.compress_model import (
        CompressOptions,
        compress_model,
        preview_compress,
        recovery_minutes,
    )
    from eightfold.pipeline.verdict_line import bad_checks

    if labels is not None and data is not None:
        raise UsageError("--labels and --data", allowed="one of them", remedy="--data for boxes, --labels for classes")
    require_output(json, reads=[model, images, weights, preprocess])
    options = CompressOptions(
        targets=tuple(target or ("cpu-x86",)),
        keep=keep,
        latency=latency,
        precision=precision,
        threads=threads,
        labelled=labels or data,
        minutes=minutes,
        max_drop=max_drop,
        min_speedup=min_speedup,
        batches=tuple(batch or ()),
        size=None if size is None else image_size(size),
        num_classes=classes,
        weights=weights,
        inputs=json_inputs(inputs),
        task=task_named(task) if task else None,
        preprocess=None if preprocess is None else Preprocess.load(preprocess),
        seed=seed,
        seconds=seconds,
    )
    steps = preview_compress(model, images, output, options=options)
    if dry_run:
        show_preview(steps)
        write_result(json, {"steps": [dataclasses.asdict(step) for step in steps]})
        return
    known = {"recover": 60 * recovery_minutes(options)}
    estimates = Estimates(steps, known, apart=() if latency is None else ("prune",))
    result = compress_model(model, images, output, options=options, listener=estimates.show)
    _show_result(result, output, json)
    if bad_checks(result) and not force:
        typer.echo("eightfold: the result is bad, see its first line; it is kept; to exit with 0: --force", err=True)
        raise typer.Exit(1)


def _show_result(result: RunResult, output: Path, json: Path | None) -> None:
    """Print the verdict, the table and the command to type to change the result; write it as JSON."""
    from eightfold.pipeline.verdict_line import verdict_line

    print(f"\n{verdict_line(result)}")
    show_end(result)
    print(f"again   {typed('eightfold', 'run', output / 'recipe.yaml')}   # after changing what you like in it")
    write_result(json, {"verdict": verdict_line(result), **result.to_dict()})
