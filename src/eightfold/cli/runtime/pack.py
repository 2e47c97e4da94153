"""`eightfold pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pack(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory, or a run directory that holds one.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file. Default: NAME.eightfold of the bundle's name.")
    ] = None,
) -> None:
    """Pack a bundle into one .eightfold file. Its files are checked first.

    Example: eightfold pack out -o model.eightfold
    """
    from eightfold.errors import UsageError
    from eightfold.export.bundle.write import zip_bundle
    from eightfold.files import require_output
    from eightfold.runtime.bundle.bundle import Bundle

    folder = bundle / "bundle" if (bundle / "bundle" / "manifest.json").is_file() else bundle
    if folder.is_file():
        raise UsageError(f"{folder} is a file", allowed="a bundle directory", remedy="it may be packed already")
    name = Bundle.open(folder).manifest.name
    path = output or Path(f"{name}.eightfold")
    if path.suffix != ".eightfold":
        raise UsageError(f"--output {path}", allowed="a file ending in .eightfold")
    require_output(path, reads=[folder])
    print(f"wrote {zip_bundle(folder, path)}")
