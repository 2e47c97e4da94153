"""`eightfold evaluate`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.network import SourceInputs, SourceSize, json_inputs
from eightfold.cli.options import image_size, task_named


def evaluate(
    first: Annotated[str, typer.Argument(help="BUNDLE, BUNDLE:ARTIFACT, .onnx file or network.")],
    data: Annotated[
        str,
        typer.Option(help="FOLDER/LABEL/*, COCO .json, YOLO .yaml, or folder of images/, masks/."),
    ],
    second: Annotated[
        str | None, typer.Argument(help="Second artifact: also test the difference on the same images.")
    ] = (None),
    task: Annotated[str, typer.Option(help="Decoder name or task JSON file, if the network states none.")] = "",
    preprocess: Annotated[Path | None, typer.Option(help="JSON of the Preprocess of a network or file.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a named network.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of outputs of a named network.")] = None,
    size: SourceSize = None,
    inputs: SourceInputs = None,
    json: Annotated[Path | None, typer.Option(help="Also write the metrics to this file.")] = None,
) -> None:
    """Measure a network on labelled images. For two, a paired test shows if they differ.

    Example: eightfold evaluate out/bundle:pruned-fp32-b1 --data photos/val --json metrics.json

    Example: eightfold evaluate yolo.onnx out/bundle --data val.json
    """
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.files import require_output, write_text
    from eightfold.pipeline.evaluate_models import EvaluateOptions
    from eightfold.pipeline.evaluate_models import evaluate as measure

    require_output(json, reads=[first, second, data, preprocess, weights])
    options = EvaluateOptions(
        task=task_named(task) if task else None,
        preprocess=None if preprocess is None else Preprocess.load(preprocess),
        weights=weights,
        num_classes=classes,
        size=None if size is None else image_size(size),
        inputs=json_inputs(inputs),
    )
    table = measure(first, second, data=data, options=options)
    print(table.describe())
    if json is not None:
        write_text(json, json_module.dumps(table.to_dict(), indent=1) + "\n")
        typer.echo(f"wrote {json}", err=True)
