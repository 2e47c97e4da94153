"""`eightfold sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import BundlePath, typed


def sign(
    bundle: BundlePath,
    key: Annotated[Path, typer.Option(help="PEM file of the private Ed25519 key.")],
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Make the key first; the public key goes to KEY.pub.")
    ] = False,
) -> None:
    """Sign a bundle with a private key.

    Example: eightfold sign runs/demo/bundle --key release.key --new-key

    Example: eightfold sign model.eightfold --key release.key
    """
    from eightfold.runtime.bundle.sign import new_key as make_key
    from eightfold.runtime.bundle.sign import sign_bundle

    if new_key:
        print(f"wrote {key} (keep it secret) and {make_key(key)} (give it to those who check)")
    check = typed("eightfold", "verify", bundle, "--key", "PUBLIC_KEY")
    print(f"signed {sign_bundle(bundle, key)}; check it with: {check}")
