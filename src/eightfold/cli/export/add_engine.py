"""`eightfold add-engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_engine(
    bundle: Annotated[Path, typer.Argument(help="The bundle that holds the graph of the engine.")],
    engine: Annotated[Path, typer.Argument(help="The engine, with its record beside it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output bundle. Default: replace the old one.")
    ] = None,
) -> None:
    """Add an engine built on a board to its bundle. Needs the base install only.

    The signature is dropped: sign the new bundle.

    Example: eightfold add-engine runs/demo/bundle board.engine
    """
    from eightfold.export.bundle.add_engine import add_engine as add
    from eightfold.runtime.bundle.bundle import Bundle

    written = add(bundle, engine, output)
    print(f"{written}: {Bundle.open(written).describe()}")
