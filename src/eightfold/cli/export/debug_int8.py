"""`eightfold debug-int8`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import ImagesArgument, PreprocessOfImages


def debug_int8(
    model: Annotated[Path, typer.Argument(help="The FP32 .onnx file.")],
    int8: Annotated[Path, typer.Argument(help="The INT8 .onnx file by `eightfold quantize`.")],
    images: ImagesArgument,
    preprocess: PreprocessOfImages,
    count: Annotated[int, typer.Option(help="Maximum number of images.")] = 16,
    show: Annotated[int, typer.Option(min=1, help="Layers to list.")] = 20,
) -> None:
    """List the layers by SQNR of INT8 against FP32, worst first.

    Example: eightfold debug-int8 model.onnx model.int8.onnx photos/ --preprocess preprocess.json
    """
    from eightfold.calib.images.images import open_images
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.export.int8.layer_errors import compare_layers

    errors = compare_layers(model, int8, open_images(images).sample(count), Preprocess.load(preprocess))
    print(errors.describe(show))
