"""`eightfold run`."""

from __future__ import annotations

import dataclasses
import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.options import terminal_width
from eightfold.json_types import JsonDict

if TYPE_CHECKING:
    from eightfold.pipeline.job.dry_run import StepPreview
    from eightfold.pipeline.job.runner import StepResult
    from eightfold.pipeline.run import RunResult
    from eightfold.runtime.report.report_content import Check


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe; recipes/demo.yaml is a commented example.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run directory, instead of the recipe's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the steps that are done or would run, with reasons; run nothing.")
    ] = False,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest loss of accuracy in points. Default: limits.max_drop.")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Least speed-up over the baseline. Default: limits.min_speedup.")
    ] = None,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Exit with code 0 even if a limit is missed.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(help="Also write the result as JSON: paths, numbers, checks and steps."),
    ] = None,
) -> None:
    """Run a recipe from training to a measured bundle. Finished steps are skipped.

    If a limit is missed, the exit code is 1 and the next thing to try is named.

    Example: eightfold run recipes/demo.yaml

    Example: eightfold run recipes/demo.yaml --dry-run
    """
    from eightfold.files import require_output
    from eightfold.pipeline.run import preview_run
    from eightfold.pipeline.run import run as run_recipe

    require_output(json, reads=[recipe])
    if dry_run:
        outlook = preview_run(recipe, output=output, max_drop=max_drop, min_speedup=min_speedup)
        show_preview(outlook)
        write_result(json, {"steps": [dataclasses.asdict(step) for step in outlook]})
        return
    result = run_recipe(recipe, output=output, max_drop=max_drop, min_speedup=min_speedup, listener=_show)
    show_end(result)
    write_result(json, result.to_dict())
    if result.failed and not allow_failed:
        _say_failed(result.failed)
        raise typer.Exit(1)


def _say_failed(failed: Sequence[Check]) -> None:
    names = ", ".join(check.name for check in failed)
    remedy = next((check.remedy for check in failed if check.remedy), "see the report")
    typer.echo(f"eightfold: does not hold: {names}; {remedy}; to accept it: --allow-failed", err=True)


def write_result(path: Path | None, data: JsonDict) -> None:
    """Write a result as JSON, where a file is named."""
    from eightfold.files import write_text

    if path is not None:
        write_text(path, json_module.dumps(data, indent=1) + "\n")
        typer.echo(f"wrote {path}", err=True)


def show_preview(outlook: Sequence[StepPreview]) -> None:
    """Print what would be done."""
    for step in outlook:
        print(step.describe())
    states = [step.state for step in outlook]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"\n{len(states)} steps: {counts}. Nothing was done.")


def _show(event: StepResult | str) -> None:
    if isinstance(event, str):
        print(f"{event} ...", flush=True)
    elif event.skipped:
        print(f"{event.name}: up to date", flush=True)
    else:
        print(f"{event.name}: {event.said} ({event.seconds:.1f} s)", flush=True)


def show_end(result: RunResult) -> None:
    """Print the table, the promises and the places of a finished run."""
    from eightfold.pipeline.summary import summary

    print()
    if result.did_nothing:
        print("Nothing to do: every step is up to date.")
    print(summary(result, terminal_width()))
