"""Builds a TensorRT engine from an ONNX file in memory, with the record of how it was built."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from eightfold.arrays import Arrays
from eightfold.errors import BuildError, MissingExtraError, UnknownNameError, UsageError, one_of
from eightfold.export.target_names import ON_THE_BOARD, EngineTarget, parse_target
from eightfold.export.tensorrt.accepted import require_takable
from eightfold.export.tensorrt.built_engine import BuiltEngine
from eightfold.export.tensorrt.configure import configure, layers_for_gpu, network_flags
from eightfold.export.tensorrt.device import BuildGpu, building_gpu
from eightfold.export.tensorrt.generation import Generation, Module, generation_of, require_version
from eightfold.export.tensorrt.intermediate_outputs import mark_outputs
from eightfold.export.tensorrt.layers import EngineLayers, layers_of_engine, layers_of_network
from eightfold.export.tensorrt.limits import require_available, require_dla, require_int8, require_sense, with_dla
from eightfold.export.tensorrt.messages import collecting_logger, first_error
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.parse import TypedGraph, parse, sha256_of_graph, typed_graph
from eightfold.export.tensorrt.record import EngineRecord
from eightfold.export.tensorrt.stopping import stoppable
from eightfold.export.tensorrt.timing_cache import save_timing_cache, timing_cache_path, use_timing_cache
from eightfold.extras import installed, require
from eightfold.files import PathLike, sha256_of_bytes, sha256_of_file
from eightfold.onnx_graph.onnx_files import load_onnx, tensor_specs
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends.engine_fit import holds_host_code
from eightfold.runtime.devices.device_gpu import read_gpus
from eightfold.runtime.devices.device_jetson import read_jetson
from eightfold.runtime.devices.device_probe import DeviceProbe

if TYPE_CHECKING:
    import onnx
    from tensorrt import Builder, IBuilderConfig, INetworkDefinition

EnginePrecision = Literal["fp32", "fp16", "int8"]
MODULE_OF: dict[str, Module] = {"rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
DEFAULT_OPTIONS = BuildOptions()


def engine_from_onnx(
    onnx_path: PathLike, *, target: str, precision: EnginePrecision, options: BuildOptions, inputs: Arrays | None = None
) -> BuiltEngine:
    """Build an engine and compare it with nothing; arguments and errors are those of `build_engine`."""
    one_of("precision", precision, get_args(EnginePrecision))
    wanted = parse_target(target)
    _require_wanted_ranges(precision, options)
    options = _for_target(wanted, options)
    model = load_onnx(onnx_path)
    request = _Request(Path(onnx_path), model, sha256_of_graph(model), wanted, precision, options, inputs)
    operators = frozenset(node.op_type for node in model.graph.node)
    if precision == "int8" and not options.has_ranges:
        _require_quantized(operators, onnx_path)
    require_takable(model, onnx_path, wanted)
    start = time.monotonic()
    tools = _tools_for(wanted, precision, options)
    with _gpu_of(tools, options) as gpu, _graph_of(tools, request) as graph:
        built = _build(tools, request, graph, gpu)
    record = _record(tools, request, graph, gpu, built, seconds=round(time.monotonic() - start, 3))
    return BuiltEngine(built.engine, record, built.layers, operators)


def require_builder(target: str, precision: EnginePrecision, options: BuildOptions = DEFAULT_OPTIONS) -> None:
    """Raises what `build_engine` raises where the builder is missing, is another version than the target names, or does
    not have an option: before hours of work go into the graph."""
    wanted = parse_target(target)
    _tools_for(wanted, precision, _for_target(wanted, options))


@dataclasses.dataclass(frozen=True)
class _Request:
    onnx_path: Path
    model: onnx.ModelProto
    sha256: str  # of the graph, before its nodes get names
    target: EngineTarget
    precision: EnginePrecision
    options: BuildOptions
    inputs: Arrays | None


@dataclasses.dataclass(frozen=True)
class _Tools:
    """The installed builder: its module, and where its messages go."""

    trt: ModuleType
    version: str
    generation: Generation
    messages: list[str]


@dataclasses.dataclass(frozen=True)
class _Built:
    engine: bytes
    compute_capability: str
    flags: tuple[str, ...]
    gpu_layers: tuple[str, ...]
    layers: EngineLayers
    inner_outputs: tuple[TensorSpec, ...]


def _for_target(target: EngineTarget, options: BuildOptions) -> BuildOptions:
    chosen = with_dla(options) if target.dla and options.dla_core is None else options
    require_sense(chosen)
    return chosen


def _tools_for(target: EngineTarget, precision: EnginePrecision, options: BuildOptions) -> _Tools:
    module = MODULE_OF[target.family]
    if not installed(module) and target.family == "tensorrt":
        _require_gpu(target)
    trt = require(module, f"build engines for {target.family}")
    version = str(trt.__version__)
    generation = generation_of(module, version)
    if precision == "int8" and options.has_ranges and generation.ranges:
        # Ranges without Q/DQ nodes mean that the builder chooses types, which a strongly typed network forbids.
        generation = dataclasses.replace(generation, strongly_typed=False)
    require_version(target, version)
    require_available(trt, generation, precision, options)
    if generation.compute_capabilities:
        _require_capabilities(trt, target)
    return _Tools(trt, version, generation, [])


def _require_gpu(target: EngineTarget) -> None:
    """Without an NVIDIA GPU here, installing TensorRT would not help."""
    probe = DeviceProbe()
    if not read_gpus(probe) and read_jetson(probe, None) is None:
        raise MissingExtraError(
            f"{target.name}: TensorRT is not installed, and builds engines only on the device that runs them: this "
            "machine has no NVIDIA GPU",
            allowed="rtx:smXY, for which TensorRT-RTX builds without a GPU",
            remedy=ON_THE_BOARD,
        )


def _gpu_of(tools: _Tools, options: BuildOptions) -> contextlib.AbstractContextManager[BuildGpu]:
    if tools.generation.compute_capabilities:  # builds for GPUs that need not be there
        return contextlib.nullcontext(BuildGpu())
    return building_gpu(options.device)


def _graph_of(tools: _Tools, request: _Request) -> contextlib.AbstractContextManager[TypedGraph]:
    half = request.precision != "fp32" and tools.generation.strongly_typed
    if half:  # what the parser refuses is to be known before the conversion, which looks for what 16 bits cannot hold
        logger = collecting_logger(tools.trt, [])
        parse(tools.trt, _new_network(tools, tools.trt.Builder(logger)), logger, request.onnx_path)
    return typed_graph(
        request.onnx_path,
        half=half,
        inputs=request.inputs,
        keep_float=request.options.float_layers,
        model=request.model,
    )


def _build(tools: _Tools, request: _Request, graph: TypedGraph, gpu: BuildGpu) -> _Built:
    trt, generation, options = tools.trt, tools.generation, request.options
    logger = collecting_logger(trt, tools.messages)
    builder: Builder = trt.Builder(logger)
    require_dla(builder, options)
    require_int8(builder, request.precision)
    config: IBuilderConfig = builder.create_builder_config()
    capability = gpu.compute_capability
    if generation.compute_capabilities:
        capability = _set_compute_capabilities(trt, config, request.target)
    network = _new_network(tools, builder)
    parse(trt, network, logger, graph.path)
    inner = mark_outputs(network, options.inner_outputs)
    flags = configure(trt, config, network, generation, request.precision, options)
    gpu_layers = layers_for_gpu(config, network, options)
    parsed = layers_of_network(network)
    engine = _serialized(tools, builder, network, config, _cache_of(tools, options, gpu))
    if engine is None:
        raise _given_up(tools, options)
    layers = layers_of_engine(trt, engine, host_code=holds_host_code(flags)) or parsed
    return _Built(engine, capability, (*network_flags(generation), *flags), gpu_layers, layers, inner)


def _new_network(tools: _Tools, builder: Builder) -> INetworkDefinition:
    return builder.create_network(_bits(tools.trt.NetworkDefinitionCreationFlag, network_flags(tools.generation)))


def _record(
    tools: _Tools, request: _Request, graph: TypedGraph, gpu: BuildGpu, built: _Built, *, seconds: float
) -> EngineRecord:
    taken, given = tensor_specs(request.model)
    return EngineRecord(
        target=request.target.name,
        precision=request.precision,
        builder=tools.generation.module,
        builder_version=tools.version,
        device=gpu.name,
        compute_capability=built.compute_capability,
        flags=built.flags,
        options=request.options.without_files(),
        float_nodes=graph.kept,
        gpu_layers=built.gpu_layers,
        messages=tuple(tools.messages),
        steps=graph.steps,
        onnx_sha256=sha256_of_file(request.onnx_path),
        graph_sha256=request.sha256,
        parsed_sha256=graph.sha256,
        engine_sha256=sha256_of_bytes(built.engine),
        engine_bytes=len(built.engine),
        seconds=seconds,
        inputs=taken,
        outputs=(*given, *built.inner_outputs),
    )


def _cache_of(tools: _Tools, options: BuildOptions, gpu: BuildGpu) -> Path | None:
    if options.timing_cache is None:
        return None
    device = gpu.name or gpu.compute_capability
    return timing_cache_path(options.timing_cache, tools.generation.module, tools.version, device)


def _serialized(
    tools: _Tools, builder: Builder, network: INetworkDefinition, config: IBuilderConfig, cache: Path | None
) -> bytes | None:
    if cache:
        use_timing_cache(config, cache)
    with stoppable(tools.trt, config):
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        return None
    if cache:
        save_timing_cache(config, cache)
    return bytes(engine)


def _given_up(tools: _Tools, options: BuildOptions) -> BuildError:
    limited = options.workspace_bytes is not None
    return BuildError(
        f"the builder of {tools.generation.module} {tools.version} failed ({first_error(tools.messages)})",
        remedy="allow layers more memory: a larger workspace, or no limit"
        if limited
        else "compare the graph with the version's support matrix",
    )


def _bits(enum: Any, names: tuple[str, ...]) -> int:
    return sum(1 << int(getattr(enum, name)) for name in names)


def _require_capabilities(trt: ModuleType, target: EngineTarget) -> None:
    known = [item for item in dir(trt.ComputeCapability) if item.startswith("SM")]
    for major, minor in target.compute_capabilities:
        if f"SM{major}{minor}" not in known:
            raise UnknownNameError.of("compute capability", f"SM{major}{minor}", known)


def _set_compute_capabilities(trt: ModuleType, config: Any, target: EngineTarget) -> str:
    # TensorRT-RTX only: what types know of TensorRT lacks these.
    config.num_compute_capabilities = len(target.compute_capabilities)
    for place, (major, minor) in enumerate(target.compute_capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{major}{minor}"), place)
    return ",".join(f"{major}.{minor}" for major, minor in target.compute_capabilities)


def _require_wanted_ranges(precision: EnginePrecision, options: BuildOptions) -> None:
    if options.has_ranges and precision != "int8":
        raise UsageError(f"ranges for an engine in {precision}", allowed="ranges with precision int8")
    cache = options.calibration_cache
    if cache is not None and not cache.is_file():
        raise UsageError(f"there is no file {str(cache)!r}", allowed="a TensorRT calibration cache")


def _require_quantized(operators: Collection[str], path: PathLike) -> None:
    if "QuantizeLinear" not in operators:
        raise UsageError(
            f"{path} has no QuantizeLinear node",
            allowed="a graph with Q/DQ pairs for precision int8, or ranges",
            remedy="quantize it first with ef.quantize(..., target='tensorrt')",
        )
