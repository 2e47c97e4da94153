"""`eightfold profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eightfold.cli.network import INPUTS_HELP, SOURCE_HELP, load_network
from eightfold.cli.options import image_size
from eightfold.extras import require


def profile(
    model: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    target: Annotated[
        str | None, typer.Option(help="cpu-x86, cpu-arm or openvino. Default: onnxruntime on this CPU.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads. Default: the physical cores.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the points. Default: the user's cache.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights (.safetensors or a plain .pt).")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of outputs. Default: the source's own.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Image size: SIDE or HEIGHTxWIDTH. Default: the source's own.")
    ] = None,
    inputs: Annotated[str | None, typer.Option(help=INPUTS_HELP)] = None,
) -> None:
    """Measure the latency of layers over their widths.

    Points that are known come from the cache; an interrupted profile resumes. `eightfold prune --latency` uses them.

    Example: eightfold profile mobilenet_v2 --precision int8
    """
    require("torch", "profile a network")
    from eightfold.compress.profile_network import profile as profile_network
    from eightfold.files import require_output

    require_output(output)
    options: dict[str, Any] = {"batch": batch, "precision": precision, "threads": threads, "cache": output}
    if model.endswith(".onnx"):
        sides = None if size is None else image_size(size)
        print(profile_network(model, target, size=sides, **options).describe())
        return
    loaded = load_network(model, weights=weights, classes=classes, size=size, inputs=inputs)
    examples = (*loaded.example_inputs(), *loaded.trace_arguments)
    print(profile_network(loaded.module, target, example_inputs=examples, **options).describe())
