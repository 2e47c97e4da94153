"""An ONNX file becomes a TensorRT engine, with a sidecar that says how."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from eightfold.errors import BuildError, UnknownNameError, UsageError
from eightfold.export.half import half_onnx
from eightfold.export.onnx_files import external_files, load_onnx, tensor_specs
from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.tensorrt.target import EngineTarget, parse_target
from eightfold.extras import require
from eightfold.files import PathLike, sha256_of_bytes, sha256_of_file, write_bytes

EnginePrecision = Literal["fp32", "fp16", "int8"]


def build_engine(
    onnx_path: PathLike,
    output: PathLike,
    *,
    target: str = "rtx:sm86",
    precision: EnginePrecision = "fp16",
) -> Path:
    """Build an engine from a fixed-size ONNX file; its record goes to `<output>.json`.

    Args:
        onnx_path: a float32 graph for "fp32" and "fp16"; a graph with QuantizeLinear and DequantizeLinear pairs in
            the form TensorRT takes (signed, symmetric) for "int8".
        output: where the engine goes.
        target: "rtx:smXY" builds for that compute capability without any GPU.
        precision: "fp16" converts the graph to float16 first, keeping float32 where it is needed.

    Returns:
        `output`.

    Raises:
        BuildError: parser or builder refused the model; the message holds the first error and the node.
        MissingExtraError: the builder is not installed.
    """
    if precision not in get_args(EnginePrecision):
        raise UnknownNameError.of("precision", precision, get_args(EnginePrecision))
    wanted = parse_target(target)
    if precision == "int8":
        _require_quantized(onnx_path)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="eightfold-") as folder:
        typed = Path(onnx_path)
        if precision == "fp16":
            typed = half_onnx(onnx_path, Path(folder) / "half.onnx")
        engine, facts = _build(typed, wanted)
    write_bytes(output, engine)
    inputs, outputs = tensor_specs(load_onnx(onnx_path))
    EngineRecord(
        target=target,
        precision=precision,
        onnx_sha256=sha256_of_file(onnx_path),
        engine_sha256=sha256_of_bytes(engine),
        engine_bytes=len(engine),
        seconds=round(time.monotonic() - start, 3),
        inputs=inputs,
        outputs=outputs,
        **facts,
    ).save(sidecar_path(output))
    return Path(output)


def _build(onnx_path: Path, target: EngineTarget) -> tuple[bytes, dict[str, Any]]:
    if target.family != "rtx":
        raise UsageError("only TensorRT-RTX engines can be built so far", allowed="rtx:sm86 and the like")
    trt = require("tensorrt_rtx", "build TensorRT-RTX engines")
    messages: list[str] = []
    logger = collecting_logger(trt, messages)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, logger, onnx_path)
    config = builder.create_builder_config()
    capability = _set_compute_capability(trt, config, target)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError(f"TensorRT-RTX cannot build this network ({_first_error(messages)})", remedy="see the message")
    return bytes(engine), {
        "builder": "tensorrt_rtx",
        "builder_version": str(trt.__version__),
        "compute_capability": capability,
        "flags": ("STRONGLY_TYPED",),
        "messages": tuple(messages),
    }


def _set_compute_capability(trt: ModuleType, config: Any, target: EngineTarget) -> str:
    major, minor = target.compute_capability or (0, 0)
    name = f"SM{major}{minor}"
    if not hasattr(trt.ComputeCapability, name):
        known = [item for item in dir(trt.ComputeCapability) if item.startswith("SM")]
        raise UnknownNameError.of("compute capability", name, known)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    return f"{major}.{minor}"


def _parse(trt: ModuleType, network: Any, logger: Any, onnx_path: Path) -> None:
    parser = trt.OnnxParser(network, logger)
    # From memory where that is possible, so that no path of this machine gets into the messages.
    parsed = (
        parser.parse_from_file(str(onnx_path)) if external_files(onnx_path) else parser.parse(onnx_path.read_bytes())
    )
    if not parsed:
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        first = errors[0] if errors else None
        where = f" at node {first.node_name()!r} ({first.node_operator()})" if first else ""
        raise BuildError(
            f"TensorRT's parser refuses the graph{where}: {first.desc() if first else 'no message'}",
            allowed="operators of TensorRT's ONNX support table",
            remedy="see `eightfold export --help` for passes that replace operators",
        )


def _first_error(messages: list[str]) -> str:
    return next((text for text in messages if "ERROR" in text.partition(":")[0]), "no message")


def _require_quantized(onnx_path: PathLike) -> None:
    if not any(node.op_type == "QuantizeLinear" for node in load_onnx(onnx_path).graph.node):
        raise UsageError(
            f"{onnx_path} has no QuantizeLinear node",
            allowed="a graph with Q/DQ pairs for precision int8",
            remedy="quantize it first with ef.quantize(..., target='tensorrt')",
        )
