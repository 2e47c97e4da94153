"""`eightfold run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.options import terminal_width

if TYPE_CHECKING:
    from eightfold.pipeline.run import RunResult
    from eightfold.pipeline.runner import StepResult


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe; recipes/demo.yaml is a commented example.")],
    output: Annotated[Path | None, typer.Option(help="Run directory, instead of the recipe's.")] = None,
) -> None:
    """Carry out a recipe from training to a measured bundle. What is done already is not done again."""
    from eightfold.pipeline.run import run as run_recipe

    _show_end(run_recipe(recipe, output=output, listener=_show))


def _show(event: StepResult | str) -> None:
    if isinstance(event, str):
        print(f"{event} ...", flush=True)
    elif event.skipped:
        print(f"{event.name}: up to date", flush=True)
    else:
        print(f"{event.name}: {event.said} ({event.seconds:.1f} s)", flush=True)


def _show_end(result: RunResult) -> None:
    from eightfold.pipeline.summary import summary

    print()
    if result.did_nothing:
        print("Nothing to do: every step is up to date.")
    print(summary(result, terminal_width()))
