"""`eightfold triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import BundlePath, PublicKey


def triton(
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of Triton's model repository.")],
    artifact: Annotated[str | None, typer.Option(help="Id of an artifact. Default: the only one.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model. Default: the artifact's id.")] = None,
    key: PublicKey = None,
) -> None:
    """Write a model folder for NVIDIA Triton.

    Example: eightfold triton runs/demo/bundle -o models --artifact pruned-fp32-b1 --name digits
    """
    from eightfold.errors import UsageError
    from eightfold.export.bundle.triton import write_triton
    from eightfold.runtime.bundle.bundle import Bundle

    opened = Bundle.open(bundle, key=key)
    ids = [each.id for each in opened.manifest.artifacts]
    if artifact is None and len(ids) != 1:
        raise UsageError(f"{bundle} holds {len(ids)} artifacts", allowed=", ".join(ids), remedy="name one: --artifact")
    folder = write_triton(opened, ids[0] if artifact is None else artifact, output, name=name)
    print(f"wrote {folder}; serve it with: tritonserver --model-repository {output}")
