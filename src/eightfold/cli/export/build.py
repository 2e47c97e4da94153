"""`eightfold build`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from eightfold.cli.options import FilePreprocess, GpuNumber, file_inputs
from eightfold.errors import UsageError, one_of
from eightfold.files import require_output

if TYPE_CHECKING:
    from eightfold.runtime.bundle.manifest import Step

# Closer than this is what float16 comes, where its range is enough.
FAR = 0.99
Constraints = Literal["obey", "prefer"]


def build(
    onnx: Annotated[Path, typer.Argument(help="A fixed-size .onnx file; with Q/DQ pairs for int8.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output engine; its record goes to OUTPUT.json.")],
    target: Annotated[
        str, typer.Option(help="rtx:smXY[,smXY] (no GPU needed), tensorrt, tensorrt:8.2, openvino.")
    ] = "rtx:sm86",
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or int8. Default: fp16.")] = None,
    images: Annotated[
        str | None, typer.Option(help="Images to find nodes that must stay in float32, and to verify.")
    ] = None,
    preprocess: FilePreprocess = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print the engine's layers.")] = False,
    workspace_mib: Annotated[
        int | None,
        typer.Option(min=1, max=1 << 24, help="Memory limit of a layer. Default: TensorRT's own."),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="Timing cache to read and write; device and version join its name.")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="Optimization level: 0 (fast build) to 5 (fast engine). From 8.6.")
    ] = None,
    tactic_source: Annotated[list[str] | None, typer.Option(help="Tactic source, e.g. CUDNN; repeat for more.")] = None,
    dla: Annotated[int | None, typer.Option(min=0, help="Run supported layers on this DLA core.")] = None,
    gpu_fallback: Annotated[bool, typer.Option(help="Let the GPU run layers that the DLA does not support.")] = True,
    device: GpuNumber = 0,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Build an engine for later TensorRT versions, too. From 8.6.")
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible", help="Build an engine for every GPU from Ampere on. From 8.6; not on Jetson."
        ),
    ] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="Allow replacing the weights later with eightfold refit.")
    ] = False,
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="Omit the weights until `eightfold refit`. From 10.0.")
    ] = False,
    float_layer: Annotated[list[str] | None, typer.Option(help="Layer to keep in float32; repeat for more.")] = None,
    constraints: Annotated[str, typer.Option(help="Precision constraints: obey, or (before 10.12) prefer.")] = "obey",
    ranges: Annotated[
        Path | None, typer.Option(help="Ranges by `eightfold calibrate`: INT8 without Q/DQ pairs. Before 11.")
    ] = None,
    calibration_cache: Annotated[
        Path | None, typer.Option(help="TensorRT calibration cache: INT8 without Q/DQ pairs. Before 11.")
    ] = None,
    inner_output: Annotated[
        list[str] | None,
        typer.Option(help="Intermediate tensor to add to the outputs; repeat for more."),
    ] = None,
) -> None:
    """Build a TensorRT engine, or an OpenVINO model, from a graph.

    The layers go to OUTPUT.layers.json, from TensorRT's inspector if the engine can be loaded here.
    Options that the installed version lacks are refused.

    Example: eightfold build model.onnx --target rtx:sm86 --precision fp16 -o model.engine
    """
    require_output(output, reads=[onnx, preprocess, ranges, calibration_cache, images])
    asked = {
        "workspace_bytes": None if workspace_mib is None else workspace_mib << 20,
        "timing_cache": timing_cache,
        "optimization_level": optimization_level,
        "tactic_sources": None if tactic_source is None else tuple(tactic_source),
        "dla_core": dla,
        "gpu_fallback": gpu_fallback,
        "device": device,
        "version_compatible": version_compatible,
        "hardware_compatible": hardware_compatible,
        "refittable": refit,
        "strip_weights": strip_weights,
        "float_layers": tuple(float_layer or ()),
        "precision_constraints": one_of("constraints", constraints, get_args(Constraints)),
        "ranges": None if ranges is None else _thresholds(ranges, onnx),
        "calibration_cache": calibration_cache,
        "inner_outputs": tuple(inner_output or ()),
    }
    if target == "openvino":
        _build_openvino(onnx, output, precision, file_inputs(onnx, images, preprocess), asked)
        return
    from eightfold.export.tensorrt.build import build_engine
    from eightfold.export.tensorrt.layers import EngineLayers, layers_path
    from eightfold.export.tensorrt.options import BuildOptions
    from eightfold.export.tensorrt.record import EngineRecord

    engine = build_engine(
        onnx,
        output,
        target=target,
        precision=precision or "fp16",  # type: ignore[arg-type]  # checked inside
        options=BuildOptions(**asked),
        inputs=file_inputs(onnx, images, preprocess),
    )
    record = EngineRecord.of(engine)
    print(f"{engine}: {record.describe()}")
    _show(record.steps)
    if layers:
        print(EngineLayers.load(layers_path(engine)).describe())


def _thresholds(ranges: Path, onnx: Path) -> dict[str, float]:
    from eightfold.calib.trt_cache import read_ranges

    return read_ranges(ranges, onnx).thresholds


def _build_openvino(
    onnx: Path, output: Path, precision: str | None, inputs: dict[str, Any] | None, asked: dict[str, Any]
) -> None:
    from eightfold.export.openvino.openvino_build import build_openvino
    from eightfold.export.openvino.openvino_record import OpenVinoRecord, openvino_record_path
    from eightfold.export.tensorrt.options import BuildOptions

    usual = BuildOptions()
    changed = [name for name, value in vars(BuildOptions(**asked)).items() if value != getattr(usual, name)]
    given = changed if precision is None else ["precision", *changed]
    if given:
        raise UsageError(
            f"options of an engine build with --target openvino ({', '.join(given)})",
            allowed="--images and --preprocess: OpenVINO keeps the graph's types, and compiles it where it runs",
            remedy="quantize the graph first for INT8: eightfold quantize ... --target openvino",
        )
    print(f"wrote {build_openvino(onnx, output, inputs=inputs)} and its weights beside it")
    _show(OpenVinoRecord.load(openvino_record_path(output)).steps)


def _show(steps: Iterable[Step]) -> None:
    for step in steps:
        cosine = "no cosine" if step.cosine is None else f"cosine {step.cosine:.6f}"
        print(f"  {step.name}: {cosine} to the graph")
        for note in step.notes:
            print(f"  {note}")
        if step.name == "float16" and step.cosine is not None and step.cosine < FAR:
            print("  far from the graph: --images of its use show what has to stay in float32")
