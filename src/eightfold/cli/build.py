"""`eightfold build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def build(
    onnx: Annotated[Path, typer.Argument(help="A fixed-size .onnx file; with Q/DQ pairs for int8.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine; its record goes to OUTPUT.json.")],
    target: Annotated[str, typer.Option(help="rtx:smXY (no GPU needed), tensorrt, tensorrt:8.2, ...")] = "rtx:sm86",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp16",
) -> None:
    """Build a TensorRT engine.

    Example: eightfold build model.onnx --target rtx:sm86 --precision fp16 -o model.engine
    """
    from eightfold.export.tensorrt.build import build_engine
    from eightfold.export.tensorrt.record import EngineRecord, sidecar_path

    engine = build_engine(onnx, output, target=target, precision=precision)  # type: ignore[arg-type]  # checked inside
    print(f"{engine}: {EngineRecord.load(sidecar_path(engine)).describe()}")
