"""`eightfold inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.network import SourceInputs, SourceSize, load_network

# Files that `eightfold build` writes, with a record beside them.
RECORDED = (".engine", ".plan", ".xml")


def inspect(
    subject: Annotated[
        str,
        typer.Argument(help="Bundle, engine with its record, or network; see `eightfold sources`."),
    ],
    size: SourceSize = None,
    classes: Annotated[int | None, typer.Option(help="Number of outputs of a network. Default: the source's own.")] = (
        None
    ),
    weights: Annotated[Path | None, typer.Option(help="Weights of a network (.safetensors or a plain .pt).")] = None,
    inputs: SourceInputs = None,
    multiple: Annotated[int, typer.Option(min=1, help="Channel multiple for a network's groups.")] = 8,
    params: Annotated[bool, typer.Option("--params", help="List the parameters of a network with shapes.")] = False,
) -> None:
    """Describe a bundle, an engine or a network. Verifies a bundle's digests, lists an engine's layers, and shows the
    prunable groups of a network.

    Example: eightfold inspect runs/demo/bundle

    Example: eightfold inspect timm:ghostnet_100 --size 160
    """
    if Path(subject).is_file() and Path(subject).suffix in RECORDED:
        print(_built(Path(subject)))
    elif _is_bundle(subject):
        from eightfold.runtime.bundle.bundle import Bundle
        from eightfold.runtime.report.inspection import inspect_bundle

        print(inspect_bundle(Bundle.open(Path(subject))))
    else:
        loaded = load_network(subject, weights=weights, classes=classes, size=size, inputs=inputs)
        from eightfold.compress.inspection import inspect_module, parameter_table  # imports torch

        if params:
            print("\n".join(parameter_table(loaded.module)))
            return
        found = inspect_module(loaded.module, loaded.example_inputs(), multiple=multiple)
        print(_pruned(Path(subject), found.macs, found.parameters) + found.describe())


def _pruned(folder: Path, macs: int, parameters: int) -> str:
    """The costs before and after, of a folder that prune wrote; else nothing."""
    from eightfold.compress.surgery.source_record import SOURCE, SourceRecord

    if not (folder / SOURCE).is_file():
        return ""
    record = SourceRecord.load(folder / SOURCE)
    pairs = (("MACs", record.macs_before, macs), ("parameters", record.parameters_before, parameters))
    shown = [f"{name} {old:,} -> {new:,} ({new / old:.1%})" for name, old, new in pairs if old]
    return f"pruned from {record.source}{': ' if shown else ''}{', '.join(shown)}\n"


def _is_bundle(subject: str) -> bool:
    """A path that no model source takes."""
    from eightfold.zoo.sources.registry import SOURCES

    path = Path(subject)
    if subject.endswith(".eightfold") or (path / "manifest.json").exists():
        return True
    return path.exists() and not any(source.takes(subject) for source in SOURCES)


def _built(file: Path) -> str:
    from eightfold.export.openvino.openvino_record import OpenVinoRecord, openvino_record_path
    from eightfold.export.tensorrt.layers import EngineLayers, layers_path
    from eightfold.export.tensorrt.record import EngineRecord

    if file.suffix == ".xml":
        return OpenVinoRecord.load(openvino_record_path(file)).describe()
    lines = [EngineRecord.of(file).describe()]
    if layers_path(file).is_file():
        lines.append(EngineLayers.load(layers_path(file)).describe())
    return "\n".join(lines)
