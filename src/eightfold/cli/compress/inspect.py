"""`eightfold inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import image_size

# Files that `eightfold build` writes, with a record beside them.
RECORDED = (".engine", ".plan", ".xml")


def inspect(
    subject: Annotated[
        str,
        typer.Argument(
            help="A bundle (directory or .eightfold file), an engine with its record, or a torchvision name, "
            "timm:NAME, package:function."
        ),
    ],
    size: Annotated[str, typer.Option(help="Image size for a network: SIDE or HEIGHTxWIDTH.")] = "224",
    classes: Annotated[int, typer.Option(help="Number of outputs of a network.")] = 1000,
    multiple: Annotated[int, typer.Option(min=1, help="Channel multiple to look at a network for.")] = 8,
) -> None:
    """Tell what is inside a bundle, an engine or a network. Each file of a bundle is held against its digest, of an
    engine the layers are told, of a network how it could be pruned.

    Example: eightfold inspect runs/demo/bundle

    Example: eightfold inspect timm:ghostnet_100 --size 160
    """
    if Path(subject).is_file() and Path(subject).suffix in RECORDED:
        print(_built(Path(subject)))
        return
    if Path(subject).exists() or subject.endswith(".eightfold"):
        from eightfold.runtime.bundle.bundle import Bundle
        from eightfold.runtime.report.inspection import inspect_bundle

        print(inspect_bundle(Bundle.open(Path(subject))))
        return
    from eightfold.zoo.models import build_model

    network = build_model(subject, num_classes=classes)
    from eightfold.compress.inspection import inspect_image_network  # imports torch, which the line above asks for

    print(inspect_image_network(network, image_size(size), multiple=multiple).describe())


def _built(file: Path) -> str:
    from eightfold.export.openvino.openvino_record import OpenVinoRecord, openvino_record_path
    from eightfold.export.tensorrt.layers import EngineLayers, layers_path
    from eightfold.export.tensorrt.record import EngineRecord

    if file.suffix == ".xml":
        return OpenVinoRecord.load(openvino_record_path(file)).describe()
    told = [EngineRecord.of(file).describe()]
    if layers_path(file).is_file():
        told.append(EngineLayers.load(layers_path(file)).describe())
    return "\n".join(told)
