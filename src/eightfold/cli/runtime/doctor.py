"""`eightfold doctor`."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, to go with a bug report.")] = False,
) -> None:
    """Check this machine and its back ends. Lists versions, CPU features and missing packages.

    The exit code is 1 if an installed package cannot be imported; missing packages are no failure.

    Example: eightfold doctor
    """
    from eightfold.runtime.doctor.doctor import diagnose

    diagnosis = diagnose()
    print(diagnosis.to_json() if json else diagnosis.describe())
    if diagnosis.broken:
        raise typer.Exit(1)
