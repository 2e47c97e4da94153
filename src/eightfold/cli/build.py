"""`eightfold build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import image_inputs
from eightfold.errors import UsageError

# Runs of the network on given images: enough to find what 16 bits cannot hold, few enough not to wait for.
RUNS = 4


def build(
    onnx: Annotated[Path, typer.Argument(help="A fixed-size .onnx file; with Q/DQ pairs for int8.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine; its record goes to OUTPUT.json.")],
    target: Annotated[str, typer.Option(help="rtx:smXY (no GPU needed), tensorrt, tensorrt:8.2, ...")] = "rtx:sm86",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp16",
    images: Annotated[
        str | None, typer.Option(help="Images on which to find what has to stay in float32, and to check the rest.")
    ] = None,
    preprocess: Annotated[Path | None, typer.Option(help="JSON of the Preprocess of those images.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print the engine's layers.")] = False,
) -> None:
    """Build a TensorRT engine.

    Its layers go to OUTPUT.layers.json, as TensorRT's inspector tells them where the engine can be loaded.

    Example: eightfold build model.onnx --target rtx:sm86 --precision fp16 -o model.engine
    """
    from eightfold.export.onnx_files import load_onnx, tensor_specs
    from eightfold.export.tensorrt.build import build_engine
    from eightfold.export.tensorrt.layers import EngineLayers, layers_path
    from eightfold.export.tensorrt.record import EngineRecord, sidecar_path

    if (images is None) != (preprocess is None):
        raise UsageError("one of --images and --preprocess", allowed="both or none: how an image becomes the input")
    inputs = None
    if images is not None and preprocess is not None:
        inputs = image_inputs(tensor_specs(load_onnx(onnx))[0], images, preprocess, RUNS)
    engine = build_engine(onnx, output, target=target, precision=precision, inputs=inputs)  # type: ignore[arg-type]  # checked inside
    record = EngineRecord.load(sidecar_path(engine))
    print(f"{engine}: {record.describe()}")
    for step in record.steps:
        print(
            "\n".join([f"  {step.name}: cosine {step.cosine:.6f} to the graph", *(f"  {note}" for note in step.notes)])
        )
    if layers:
        print(EngineLayers.load(layers_path(engine)).describe())
