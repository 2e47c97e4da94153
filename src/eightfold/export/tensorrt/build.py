"""An ONNX file becomes a TensorRT engine, with a sidecar that says how."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from eightfold.errors import BuildError, UnknownNameError, UsageError, one_of
from eightfold.export.half import checked_half
from eightfold.export.onnx_files import external_files, load_onnx, save_onnx, tensor_specs
from eightfold.export.tensorrt.accepted import require_takable
from eightfold.export.tensorrt.configure import configure, network_flags
from eightfold.export.tensorrt.generation import Module, generation_of, require_version
from eightfold.export.tensorrt.layers import EngineLayers, layers_of_engine, layers_of_network, layers_path
from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.tensorrt.target import EngineTarget, parse_target
from eightfold.export.tensorrt.timing_cache import cache_path, save_timing_cache, use_timing_cache
from eightfold.export.verify import Arrays
from eightfold.extras import require
from eightfold.files import PathLike, sha256_of_bytes, sha256_of_file, write_bytes
from eightfold.runtime.manifest import Step

if TYPE_CHECKING:
    from tensorrt import Builder, IBuilderConfig, INetworkDefinition, OnnxParser

EnginePrecision = Literal["fp32", "fp16", "int8"]
MODULE_OF: dict[str, Module] = {"rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
DEFAULT_OPTIONS = BuildOptions()


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
        target: "rtx:smXY" builds for that compute capability without any GPU; "tensorrt", "tensorrt:10.3" and
            "tensorrt-dla" build for this machine's device with the TensorRT installed.
        precision: "fp16" converts the graph to float16 first where the builder is strongly typed, keeping float32
            where it is needed, and sets the flag where it is not. "int8" does so with what lies between Q/DQ pairs.
        options: see `BuildOptions`.
        inputs: real inputs by name, to find out what has to stay in float32; see `half_onnx`. What the comparison found
            goes into the record.

    Returns:
        `output`.

    Raises:
        BuildError: parser or builder refused the model; the message holds the first error and the node.
        MissingExtraError: the builder is not installed.
    """
    one_of("precision", precision, get_args(EnginePrecision))
    wanted = parse_target(target)
    if precision == "int8" and not options.has_ranges:
        _require_quantized(onnx_path)
    if wanted.dla and options.dla_core is None:
        options = options.model_copy(update={"dla_core": 0})
    start = time.monotonic()
    built = _build(Path(onnx_path), wanted, precision, options, inputs)
    write_bytes(output, built.engine)
    taken, given = tensor_specs(load_onnx(onnx_path))
    EngineRecord(
        target=target,
        precision=precision,
        builder=built.builder,
        builder_version=built.version,
        compute_capability=built.compute_capability,
        flags=built.flags,
        messages=built.messages,
        steps=built.steps,
        onnx_sha256=sha256_of_file(onnx_path),
        engine_sha256=sha256_of_bytes(built.engine),
        engine_bytes=len(built.engine),
        seconds=round(time.monotonic() - start, 3),
        inputs=taken,
        outputs=given,
    ).save(sidecar_path(output))
    built.layers.save(layers_path(output))
    return Path(output)


@dataclasses.dataclass(frozen=True)
class _Built:
    engine: bytes
    builder: str
    version: str
    compute_capability: str
    flags: tuple[str, ...]
    messages: tuple[str, ...]
    steps: tuple[Step, ...]
    layers: EngineLayers


def _build(
    onnx_path: Path, target: EngineTarget, precision: str, options: BuildOptions, inputs: Arrays | None
) -> _Built:
    module = MODULE_OF[target.family]
    trt: Any = require(module, f"build engines for {target.family}")
    version = str(trt.__version__)
    generation = generation_of(module, version)
    if precision == "int8" and options.has_ranges and generation.ranges:
        # Ranges without Q/DQ nodes mean that the builder chooses types, which a strongly typed network forbids.
        generation = dataclasses.replace(generation, strongly_typed=False)
    require_version(target, version)
    messages: list[str] = []
    logger = collecting_logger(trt, messages)
    builder: Builder = trt.Builder(logger)
    config: IBuilderConfig = builder.create_builder_config()
    capability = _set_compute_capability(trt, config, target) if generation.compute_capabilities else ""
    require_takable(load_onnx(onnx_path), onnx_path, target)
    on_network = network_flags(trt, generation)
    network: INetworkDefinition = builder.create_network(_bits(trt.NetworkDefinitionCreationFlag, on_network))
    with tempfile.TemporaryDirectory(prefix="eightfold-") as folder:
        steps: tuple[Step, ...] = ()
        typed = onnx_path
        if precision != "fp32" and generation.strongly_typed:
            half, steps = checked_half(onnx_path, inputs=inputs)
            typed = save_onnx(half, Path(folder) / "half.onnx")
        _parse(trt, network, logger, typed)
    flags = configure(trt, config, network, generation, precision, options)
    parsed = layers_of_network(network)
    cache = options.timing_cache and cache_path(options.timing_cache, module, version, capability)
    if cache:
        use_timing_cache(config, cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError(
            f"the builder of {module} {version} gives up ({_first_error(messages)})",
            remedy="compare the graph with the version's support matrix",
        )
    if cache:
        save_timing_cache(config, cache)
    layers = layers_of_engine(trt, bytes(engine)) or parsed
    return _Built(bytes(engine), module, version, capability, (*on_network, *flags), tuple(messages), steps, layers)


def _bits(enum: Any, names: tuple[str, ...]) -> int:
    return sum(1 << int(getattr(enum, name)) for name in names)


def _set_compute_capability(trt: Any, config: Any, target: EngineTarget) -> str:
    major, minor = target.compute_capability or (0, 0)
    name = f"SM{major}{minor}"
    if not hasattr(trt.ComputeCapability, name):
        known = [item for item in dir(trt.ComputeCapability) if item.startswith("SM")]
        raise UnknownNameError.of("compute capability", name, known)
    # TensorRT-RTX only: what types know of TensorRT lacks these.
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    return f"{major}.{minor}"


def _parse(trt: Any, network: INetworkDefinition, logger: Any, path: Path) -> None:
    parser: OnnxParser = trt.OnnxParser(network, logger)
    # From memory where that is possible, so that no path of this machine gets into the messages.
    parsed = parser.parse_from_file(str(path)) if external_files(path) else parser.parse(path.read_bytes())
    if not parsed:
        raise BuildError(
            f"TensorRT's parser refuses the graph{_parser_error(parser, path)}",
            allowed="operators of TensorRT's ONNX support table",
            remedy="replace the operator in the model, or cut the graph before it",
        )


def _parser_error(parser: OnnxParser, path: Path) -> str:
    """Where and why, as far as this version's parser tells: before 10 it gives the node's number only."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    nodes = load_onnx(path).graph.node
    where = ""
    if 0 <= error.node() < len(nodes):
        node = nodes[error.node()]
        where = f" at node {node.name!r} ({node.op_type})"
    return f"{where}: {error.desc()}"


def _first_error(messages: list[str]) -> str:
    return next((text for text in messages if "ERROR" in text.partition(":")[0]), "no message")


def _require_quantized(onnx_path: PathLike) -> None:
    if not any(node.op_type == "QuantizeLinear" for node in load_onnx(onnx_path).graph.node):
        raise UsageError(
            f"{onnx_path} has no QuantizeLinear node",
            allowed="a graph with Q/DQ pairs for precision int8, or ranges",
            remedy="quantize it first with ef.quantize(..., target='tensorrt')",
        )
