"""`eightfold inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a directory or an .eightfold file.")],
) -> None:
    """Tell what is inside a bundle, and verify the digest of each of its files.

    Example: eightfold inspect runs/demo/bundle
    """
    from eightfold.runtime.bundle import Bundle
    from eightfold.runtime.inspection import inspect_bundle

    print(inspect_bundle(Bundle.open(bundle)))
