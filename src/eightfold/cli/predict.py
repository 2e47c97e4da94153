"""`eightfold predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a directory or an .eightfold file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    backend: Annotated[str, typer.Option(help="onnxruntime, openvino, tensorrt or auto.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or auto.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Use only this batch size.")] = None,
    variant: Annotated[str, typer.Option(help="pruned, baseline, ... or auto.")] = "auto",
) -> None:
    """Run a bundle on images and print one line for each.

    Example: eightfold predict runs/demo/bundle digit.png
    """
    from eightfold.runtime.predictor import Predictor

    with Predictor(bundle, backend, precision, batch, variant=variant) as predictor:
        typer.echo(predictor.describe(), err=True)
        for image, result in zip(images, predictor.predict_batch(images), strict=True):
            print(f"{image}: {result}")
