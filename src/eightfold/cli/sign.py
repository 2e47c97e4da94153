"""`eightfold sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    key: Annotated[Path, typer.Option(help="File of the private key.")],
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Make the key first; its public half goes to KEY.pub.")
    ] = False,
) -> None:
    """Sign a bundle, so that others can check who made it.

    Example: eightfold sign runs/demo/bundle --key release.key --new-key
    """
    from eightfold.runtime.signature import new_key as make_key
    from eightfold.runtime.signature import sign_bundle

    if new_key:
        print(f"wrote {key} (keep it secret) and {make_key(key)} (give it to those who check)")
    print(f"wrote {sign_bundle(bundle, key)}")
