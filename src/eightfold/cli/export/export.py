"""`eightfold export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eightfold.cli.options import image_size, named_values, task_named, typed
from eightfold.errors import UsageError

if TYPE_CHECKING:
    import torch

    from eightfold.calib.images.preprocess import Preprocess

DEFAULT_SIZE = 224, 224


def export(
    model: Annotated[
        str, typer.Argument(help="An .onnx file, a torchvision name, timm:NAME or package.module:function.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle directory, or a file ending in .eightfold.")],
    batch: Annotated[list[int] | None, typer.Option(help="Images per run; repeat for more. Default: 1.")] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="Image size, SIDE or HEIGHTxWIDTH; repeat for more, the first is what runs where none is asked for. "
            "Default: that of the file or of --preprocess, or 224."
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a named model (.safetensors or .pt).")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of outputs of a named model. Default: 1000.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="What it is for, e.g. tensorrt:8.2 or cpu-x86; repeat for more.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset. Default: 17 or a file's own, or older where a target needs that.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="What the outputs mean: a decoder's name, or a JSON file with kind, decode, options.")
    ] = "",
    preprocess: Annotated[Path | None, typer.Option(help="JSON file of a Preprocess.")] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Images to compare each step on, 16 at most: a folder, list file, COCO .json or YOLO .yaml. "
            "Default: random values."
        ),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE makes a constant of another input of an .onnx file; the value is JSON. Repeat."),
    ] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Take uint8 pixels: preprocessing goes into the graph.")
    ] = False,
    decode: Annotated[
        bool, typer.Option("--decode", help="A detector puts out final detections: its decoder goes into the graph.")
    ] = False,
) -> None:
    """Make a bundle of a network at fixed sizes. Its graphs are simplified and compared with their source.

    Example: eightfold export resnet18 --batch 1 --batch 8 -o resnet18.eightfold

    Example: eightfold export model.onnx --size 480x640 --size 240x320 -o bundle
    """
    from eightfold.export.bundle.export_bundle import export_bundle
    from eightfold.export.bundle.output_location import require_bundle_output
    from eightfold.zoo.models import task_of

    is_file = model.endswith(".onnx")
    if is_file and (weights is not None or classes is not None):
        raise UsageError(
            "--weights or --classes with an ONNX file", allowed="those of a named network: the file has its own"
        )
    require_bundle_output(output, reads=[model, weights, preprocess, images])
    sizes = [image_size(each) for each in size or ()]
    constants = named_values(constant or ())
    how = _preprocess(preprocess, model, sizes, constants)
    source = model if is_file else _module(model, 1000 if classes is None else classes, weights)
    name = Path(model).stem if is_file else model.rpartition(":")[2]
    written = export_bundle(
        source,
        output,
        preprocess=how,
        batches=batch or (1,),
        sizes=sizes[1:],
        task=task_named(task) if task else task_of(model, (how.height, how.width)),
        opset=opset,
        targets=target or (),
        name=name,
        preprocess_in_graph=pixels,
        decode=decode,
        images=images,
        constants=constants,
    )
    print(f"wrote {written}; next: {typed('eightfold', 'inspect', written)}")


def _preprocess(
    path: Path | None, model: str, sizes: Sequence[tuple[int, int]], constants: Mapping[str, Any]
) -> Preprocess:
    """The rules at the first of the sizes, or else at their own, the file's or the usual one."""
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.export.fixed_size.file_inputs import FileInputs

    if path is not None:
        rules = Preprocess.load(path)
        return rules.at_size(*sizes[0]) if sizes else rules
    own = FileInputs.of(Path(model), constants) if model.endswith(".onnx") else None
    height, width = sizes[0] if sizes else (own and own.image_size) or DEFAULT_SIZE
    return Preprocess(height=height, width=width, channels=(own and own.image_channels) or 3)


def _module(name: str, classes: int, weights: Path | None) -> torch.nn.Module:
    from eightfold.zoo.models import build_model
    from eightfold.zoo.weights import load_weights

    module = build_model(name, num_classes=classes)
    if weights is not None:
        load_weights(module, weights)
    return module
