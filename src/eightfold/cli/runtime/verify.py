"""`eightfold verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory or .eightfold file.")],
    key: Annotated[
        Path | None, typer.Option(help="PEM file of the public key (KEY.pub) that must have signed it.")
    ] = None,
) -> None:
    """Verify every file of a bundle against its digest. With a key, the signature is verified too.

    Example: eightfold verify model.eightfold --key release.key.pub
    """
    from eightfold.runtime.bundle.bundle import Bundle

    count = Bundle.open(bundle, key=key).verify()
    print(f"{bundle}: files as in the manifest: {count}; {f'signed by {key}' if key else 'no signature checked'}")
