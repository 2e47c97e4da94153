"""`eightfold export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.network import Source, SourceInputs, SourcePreprocess, load_network
from eightfold.cli.options import image_size, named_values, task_named, typed
from eightfold.errors import ModelError

if TYPE_CHECKING:
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.runtime.bundle.sizes import Size


def export(
    model: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle directory, or a file ending in .eightfold.")],
    batch: Annotated[list[int] | None, typer.Option(help="Images per run; repeat for more. Default: 1.")] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="SIDE or HEIGHTxWIDTH; repeat for more, first the default size."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a named model (.safetensors or .pt).")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of outputs of a named model. Default: the source's own.")
    ] = None,
    inputs: SourceInputs = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Target, e.g. tensorrt:8.2 or cpu-x86; repeat for more.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset. Default: 17, a file's own, or the newest of the targets.")
    ] = None,
    task: Annotated[str, typer.Option(help="Decoder name, or a JSON file with kind, decode, options.")] = "",
    preprocess: SourcePreprocess = None,
    images: Annotated[
        str | None,
        typer.Option(help="Up to 16 images to compare each step on. Default: random values."),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE (JSON): fix an input of an .onnx file; repeat for more."),
    ] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Put preprocessing into the graph: it takes uint8 pixels.")
    ] = False,
    decode: Annotated[
        bool, typer.Option("--decode", help="Put a detector's decoder into the graph: final detections.")
    ] = False,
) -> None:
    """Export a network to a bundle of fixed-size graphs. They are simplified and compared with their source.

    Example: eightfold export resnet18 --batch 1 --batch 8 -o resnet18.eightfold

    Example: eightfold export model.onnx --size 480x640 --size 240x320 -o bundle
    """
    from eightfold.export.bundle.export_bundle import export_bundle
    from eightfold.export.bundle.output_location import require_bundle_output

    require_bundle_output(output, reads=[model, weights, preprocess, images])
    asked = [image_size(each) for each in size or ()]
    constants = named_values(constant or ())
    first = size[0] if size else _size_of(preprocess, model)
    loaded = load_network(model, weights=weights, classes=classes, size=first, inputs=inputs, constants=constants)
    if loaded.exportable:
        raise ModelError(f"{model} cannot be exported: {loaded.exportable}", allowed="networks of static shapes")
    how = loaded.preprocess if preprocess is None else _rules(preprocess, asked)
    written = export_bundle(
        loaded.network,
        output,
        preprocess=how,
        batches=batch or (1,),
        sizes=asked[1:],
        task=task_named(task) if task else loaded.task,
        opset=opset,
        targets=target or (),
        name=loaded.name,
        preprocess_in_graph=pixels,
        decode=decode,
        images=images,
        constants=constants,
    )
    print(f"wrote {written}; next: {typed('eightfold', 'inspect', written)}")


def _size_of(preprocess: Path | None, model: str) -> str | None:
    """The size that the rules in a file are for; an .onnx file has its own."""
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.runtime.bundle.sizes import size_text

    if preprocess is None or model.endswith(".onnx"):
        return None
    rules = Preprocess.load(preprocess)
    return size_text((rules.height, rules.width))


def _rules(path: Path, sizes: Sequence[Size]) -> Preprocess:
    """The rules in a file, at the first of the sizes that are asked for."""
    from eightfold.calib.images.preprocess import Preprocess

    rules = Preprocess.load(path)
    return rules.at_size(*sizes[0]) if sizes else rules
