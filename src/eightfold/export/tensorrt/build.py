"""Builds a TensorRT engine from an ONNX file, compares it with the file, and writes it with its record."""

from __future__ import annotations

from pathlib import Path

from eightfold.arrays import Arrays
from eightfold.errors import UsageError
from eightfold.export.tensorrt.check import compared_with_graph
from eightfold.export.tensorrt.engine_from_onnx import DEFAULT_OPTIONS, EnginePrecision, engine_from_onnx
from eightfold.export.tensorrt.layers import layers_path
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import sidecar_path
from eightfold.files import PathLike, require_output
from eightfold.onnx_graph.onnx_files import external_files


def build_engine(
    onnx_path: PathLike,
    output: PathLike,
    *,
    target: str = "rtx:sm86",
    precision: EnginePrecision = "fp16",
    options: BuildOptions = DEFAULT_OPTIONS,
    inputs: Arrays | None = None,
) -> Path:
    """Build an engine from a fixed-size ONNX file; its record goes to `<output>.json`, its layers, as far as this
    machine can tell them, to `<output>.layers.json`.

    Args:
        onnx_path: a float32 graph for "fp32" and "fp16". For "int8" a graph with QuantizeLinear and DequantizeLinear
            pairs in the form TensorRT takes (signed, symmetric), or a float32 graph and ranges in `options`.
        output: where the engine goes.
        target: "rtx:smXY" builds for that compute capability without any GPU, "rtx:sm86,sm89" one engine for several;
            "tensorrt", "tensorrt:10.3" and "tensorrt-dla" build for this machine's device with the TensorRT installed.
        precision: "fp16" converts the graph to float16 first where the builder is strongly typed, keeping float32
            where it is needed, and sets the flag where it is not. "int8" does so with what lies between Q/DQ pairs.
        options: see `BuildOptions`.
        inputs: real inputs by name, to find out what has to stay in float32, see `half_onnx`, and to compare the engine
            with its graph on, random ones when None. What the comparisons found goes into the record.

    Returns:
        `output`.

    Raises:
        VerificationError: the engine runs here and does not answer as its graph does; `output` is left as it was.
        BuildError: parser or builder refused the model; the message holds the first error and the node.
        MissingExtraError: the builder is not installed.
    """
    _require_places(output, Path(onnx_path), options)
    engine = engine_from_onnx(onnx_path, target=target, precision=precision, options=options, inputs=inputs)
    if not options.inner_outputs and not options.strip_weights:
        engine = engine.with_step(compared_with_graph(engine, Path(onnx_path), inputs))
    return engine.save(output)


def _require_places(output: PathLike, graph: Path, options: BuildOptions) -> None:
    """Raises UsageError, before minutes of work, if the engine's files cannot be written or would replace an input."""
    if not graph.is_file():
        raise UsageError(f"there is no file {str(graph)!r}", allowed="an ONNX file of fixed sizes")
    read = [graph, *(graph.parent / name for name in external_files(graph)), options.calibration_cache]
    for written in (output, sidecar_path(output), layers_path(output), options.timing_cache):
        require_output(written, reads=read)
