"""`eightfold profile`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eightfold.cli.network import (
    Source,
    SourceClasses,
    SourceInputs,
    SourceSize,
    SourceWeights,
    load_network,
)
from eightfold.cli.options import image_size
from eightfold.errors import BackendError, UsageError
from eightfold.extras import require

if TYPE_CHECKING:
    from eightfold.compress.plan.latency.widths import NetworkLayer
    from eightfold.runtime.bench.profile.remote_profile import DeviceJob, DeviceResult


def profile(
    model: Source,
    target: Annotated[
        str | None, typer.Option(help="cpu-x86, cpu-arm or openvino. Default: onnxruntime on this CPU.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads. Default: the physical cores.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the points. Default: the user's cache.")
    ] = None,
    weights: SourceWeights = None,
    classes: SourceClasses = None,
    size: SourceSize = None,
    inputs: SourceInputs = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Profile there: ssh://[user@]host[:port], or a .yaml file. Repeat."),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", hidden=True)] = False,
) -> None:
    """Measure the latency of layers over their widths.

    Points that are known come from the cache; an interrupted profile resumes. `eightfold prune --latency` uses them.

    Example: eightfold profile mobilenet_v2 --precision int8

    Example: eightfold profile net.onnx --device ssh://nvidia@orin.local --device devices.yaml -o profiles
    """
    if stream:
        _stream(Path(model), target, precision, threads, output)
        return
    require("torch", "profile a network")
    from eightfold.compress.profile_network import layers_to_profile
    from eightfold.compress.profile_network import profile as profile_network
    from eightfold.files import require_output

    network: dict[str, Any] = {"batch": batch}
    subject: Any = model
    if model.endswith(".onnx"):
        network["size"] = None if size is None else image_size(size)
    else:
        loaded = load_network(model, weights=weights, classes=classes, size=size, inputs=inputs)
        subject = loaded.module
        network["example_inputs"] = (*loaded.example_inputs(), *loaded.trace_arguments)
    if device:
        from eightfold.runtime.bench.profile.remote_profile import jobs_of

        jobs = jobs_of(device, target, precision, threads)
        _on_devices(layers_to_profile(subject, **network), jobs, output)
        return
    require_output(output)
    options: dict[str, Any] = {"precision": precision, "threads": threads, "cache": output}
    print(profile_network(subject, target, **network, **options).describe())


def _on_devices(layers: tuple[NetworkLayer, ...], jobs: Sequence[DeviceJob], output: Path | None) -> None:
    """Profile on each device at once, and print a table. Raises where one failed, after the table."""
    from eightfold.compress.plan.latency.widths import widest
    from eightfold.compress.profile_network import layers_ms
    from eightfold.runtime.bench.profile.layer_list import LayerList
    from eightfold.runtime.bench.profile.remote_profile import describe_devices, profile_devices

    def said(result: DeviceResult) -> None:
        word = result.failed or f"{result.points} points, {result.new} of them new"
        print(f"{result.job.device}: {word}", file=sys.stderr)

    results = profile_devices(LayerList.of(widest(layers)), jobs, output, said=said)
    print(describe_devices(results, lambda profile: layers_ms(layers, profile)))
    for result in results:
        print(f"kept {result.path}")
    failed = [result for result in results if result.failed]
    if failed:
        raise BackendError(
            f"{len(failed)} of {len(results)} devices did not finish, the first: {failed[0].failed}",
            remedy="run the same command again: it goes on where each of them was",
        )


def _stream(model: Path, target: str | None, precision: str, threads: int | None, output: Path | None) -> None:
    """Profile the layers of a list on behalf of another machine, which reads the points."""
    from eightfold.runtime.backends.targets import cpu_target
    from eightfold.runtime.bench.profile.layer_list import LayerList, stream_profile
    from eightfold.runtime.bench.profile.settings import settings_for

    if output is None:
        raise UsageError("--stream without a file", allowed="-o FILE")
    require("onnx", "write the graphs of a profile")
    settings = settings_for(target or cpu_target(), precision, threads)
    stream_profile(LayerList.load(model), settings, output, lambda line: print(line, flush=True))
