"""`eightfold doctor`."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, to go with a bug report.")] = False,
) -> None:
    """Tell what works on this machine. Back ends, versions, CPU features, and what to install for the rest.

    Packages that are missing are no failure; the exit code is 1 when one is there but cannot be imported.

    Example: eightfold doctor
    """
    from eightfold.runtime.doctor.doctor import diagnose

    diagnosis = diagnose()
    print(diagnosis.to_json() if json else diagnosis.describe())
    if diagnosis.broken:
        raise typer.Exit(1)
