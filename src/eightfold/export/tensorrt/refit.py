"""Weights put back into an engine that was built without them, or to be refitted. From TensorRT 10.0 on, whose parser
knows which initializer of an ONNX file each weight was."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from eightfold.arrays import Arrays
from eightfold.errors import BackendError, BuildError
from eightfold.export.tensorrt.device import building_gpu
from eightfold.export.tensorrt.generation import Module, generation_of
from eightfold.export.tensorrt.messages import collecting_logger, first_error
from eightfold.export.tensorrt.parse import TypedGraph, first_parser_error, sha256_of_graph, typed_graph
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.extras import require
from eightfold.files import PathLike, sha256_of_bytes, sha256_of_file, write_bytes
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.runtime.backends.cuda_memory import cuda_absent
from eightfold.runtime.backends.engine_fit import holds_host_code

if TYPE_CHECKING:
    from tensorrt import ICudaEngine, OnnxParserRefitter, Refitter, Runtime

MODULES: dict[str, Module] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}


def refit_engine(
    engine: PathLike, onnx_path: PathLike, output: PathLike, *, device: int = 0, inputs: Arrays | None = None
) -> Path:
    """Write an engine with the weights of an ONNX file. This takes a GPU that runs the engine: TensorRT loads it.

    Args:
        engine: built with `refittable` or `strip_weights`; its record lies beside it.
        onnx_path: the graph it was built from; with `refittable`, one that differs in its weights alone.
        output: where the complete engine goes, which may be `engine` itself.
        device: number of the GPU.
        inputs: what `build_engine` was given, so that the same nodes of a float16 graph stay in float32.

    Returns:
        `output`.

    Raises:
        BuildError: the engine has fixed weights, or the weights do not fit it.
        BackendError: there is no GPU here.
    """
    record = EngineRecord.of(engine)
    _require_refittable(record, engine)
    trt: ModuleType = require(record.builder, "refit engines")
    generation = generation_of(MODULES[record.builder], str(trt.__version__))
    if not hasattr(trt, "OnnxParserRefitter"):
        raise BuildError(f"TensorRT {trt.__version__} cannot refit from ONNX files", allowed="TensorRT 10.0 and later")
    half = record.precision != "fp32" and "STRONGLY_TYPED" in record.flags and generation.strongly_typed
    kept = (*record.options.float_layers, *record.float_nodes) if half else ()
    with typed_graph(Path(onnx_path), half=half, inputs=inputs, keep_float=kept) as graph:
        _require_same_weights(record, graph, onnx_path)
        if (absent := cuda_absent()) is not None:
            raise BackendError(f"refitting {engine} takes a GPU, and {absent}", remedy="refit it where it will run")
        with building_gpu(device):
            complete, flags = _refitted(trt, record, Path(engine).read_bytes(), graph.path)
    write_bytes(output, complete)
    changes = {
        "onnx_sha256": sha256_of_file(onnx_path),
        "graph_sha256": sha256_of_graph(load_onnx(onnx_path)),
        "parsed_sha256": graph.sha256,
        "engine_sha256": sha256_of_bytes(complete),
        "engine_bytes": len(complete),
        "flags": flags,
    }
    record.model_copy(update=changes).save(sidecar_path(output))
    return Path(output)


def _require_refittable(record: EngineRecord, engine: PathLike) -> None:
    if not {"REFIT", "STRIP_PLAN"} & set(record.flags):
        raise BuildError(
            f"{engine} has fixed weights",
            allowed="engines built with --refit or --strip-weights",
            remedy="build it again from the new graph",
        )


def _require_same_weights(record: EngineRecord, graph: TypedGraph, onnx_path: PathLike) -> None:
    # Kernels may have been chosen for the very values: NvInfer.h, BuilderFlag::kREFIT_IDENTICAL, which is what
    # stripping means where kREFIT is not set.
    if "REFIT" not in record.flags and graph.sha256 != record.parsed_sha256:
        raise BuildError(
            f"the weights of {onnx_path} are not those that the engine was built with",
            allowed="the same ONNX file, and for float16 the same images",
            remedy="to refit with other weights, build it with --refit as well",
        )


def _refitted(trt: ModuleType, record: EngineRecord, engine: bytes, path: Path) -> tuple[bytes, tuple[str, ...]]:
    """The engine with its weights, and its flags now."""
    messages: list[str] = []
    logger = collecting_logger(trt, messages)
    runtime: Runtime = trt.Runtime(logger)
    if holds_host_code(record.flags):  # this very builder put it there
        runtime.engine_host_code_allowed = True
    loaded: ICudaEngine | None = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise BuildError(f"{record.builder} {trt.__version__} cannot load the engine ({first_error(messages)})")
    refitter: Refitter = trt.Refitter(loaded, logger)
    parser: OnnxParserRefitter = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(path)):
        raise BuildError(f"the weights do not fit the engine{first_parser_error(parser, path)}")
    if not refitter.refit_cuda_engine():
        missing = ", ".join(refitter.get_missing_weights()[:5])
        raise BuildError(f"the graph lacks weights of the engine: {missing or first_error(messages)}")
    return _with_weights(trt, loaded, record.flags)


def _with_weights(trt: ModuleType, engine: ICudaEngine, flags: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
    # NvInferRuntime.h, serializeWithConfig: an engine that was stripped is not refittable afterwards unless it says so.
    config, lost = engine.create_serialization_config(), {"STRIP_PLAN"}
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    if {"REFIT", "STRIP_PLAN"} <= set(flags):
        if hasattr(trt.SerializationFlag, "INCLUDE_REFIT"):
            config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
        else:
            lost.add("REFIT")
    return bytes(engine.serialize_with_config(config)), tuple(flag for flag in flags if flag not in lost)
