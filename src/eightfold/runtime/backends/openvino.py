"""OpenVINO, on CPUs. The only module of the runtime that imports openvino."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from eightfold.errors import BackendError, ModelError, last_line
from eightfold.extras import installed, require
from eightfold.onnx_graph.onnx_references import require_weights
from eightfold.onnx_graph.tensor_specs import TensorSpec, spec_of
from eightfold.runtime.backends import openvino_cache
from eightfold.runtime.backends.base import Backend, NodeTime, Session, SessionOptions, Slot, empty_like

DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "u8": "uint8",
    "i8": "int8",
    "i32": "int32",
    "i64": "int64",
    "boolean": "bool",
}


class OpenVinoBackend(Backend):
    """OpenVINO on the CPU."""

    name = "openvino"
    formats = ("onnx", "openvino")
    targets = ("openvino",)
    runs_cpu_targets = True  # the Q/DQ form is the same
    caller_computes = False
    rank = 11
    module = "openvino"

    def absent(self) -> str | None:
        return None if installed("openvino") else "openvino is not installed (pip install 'eightfold[openvino]')"

    def open(self, path: Path, options: SessionOptions) -> Session:
        return OpenVinoSession(path, options)


class OpenVinoSession(Session):
    """A compiled model of OpenVINO."""

    backend = "openvino"
    provider = "cpu"

    def __init__(self, path: Path, options: SessionOptions) -> None:
        self.module = require("openvino", "run models with OpenVINO")
        self.version = self.module.__version__.partition("-")[0]
        self._core, self._settings = self.module.Core(), _settings(options)
        kept = self._kept_at(path) if options.keep_compiled else None
        if kept is None or not self._imported(kept):
            self._compile(path)
            if kept is not None:
                blob = self.raw.export_model().getvalue()
                openvino_cache.store(kept, openvino_cache.Compiled(self.inputs, self.outputs, blob))
        self.threads = int(self.raw.get_property("INFERENCE_NUM_THREADS"))
        self.pinned = bool(options.cores) and bool(self.raw.get_property("ENABLE_CPU_PINNING"))

    def _kept_at(self, path: Path) -> Path | None:
        names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
        machine = json.dumps([self._core.get_property("CPU", name) for name in names])
        return openvino_cache.cache_path(path, self.module.__version__, machine, self._settings)

    def _imported(self, kept: Path) -> bool:
        compiled = openvino_cache.load(kept)
        if compiled is None:
            return False
        try:
            # The settings again: an exported model has forgotten that bfloat16 is not wanted.
            self.raw = self._core.import_model(compiled.blob, "CPU", self._settings)
        except RuntimeError:  # of a build of OpenVINO that its version does not tell apart
            return False
        self.inputs, self.outputs = compiled.inputs, compiled.outputs
        return True

    def _compile(self, path: Path) -> None:
        model = _loaded(self._core.read_model, path)
        # Compiling merges nodes and with them names, so the names are those of the model as it was read.
        self.inputs = tuple(_spec(port, path) for port in model.inputs)
        self.outputs = tuple(_spec(port, path) for port in model.outputs)
        self.raw = _loaded(lambda _: self._core.compile_model(model, "CPU", self._settings), path)

    def new_slot(self) -> Slot:
        return OpenVinoSlot(self)


class OpenVinoSlot(Slot):
    """An inference request over numpy memory."""

    def __init__(self, session: OpenVinoSession) -> None:
        self._request = session.raw.create_infer_request()
        self.inputs = {spec.name: empty_like(spec) for spec in session.inputs}
        self.outputs = {spec.name: empty_like(spec) for spec in session.outputs}
        tensor = session.module.Tensor
        for port, array in zip(session.raw.inputs, self.inputs.values(), strict=True):
            self._request.set_tensor(port, tensor(array, shared_memory=True))
        for port, array in zip(session.raw.outputs, self.outputs.values(), strict=True):
            self._request.set_tensor(port, tensor(array, shared_memory=True))

    def run(self) -> None:
        try:
            self._request.start_async()
            self._request.wait()
        except RuntimeError as error:
            raise BackendError(f"openvino failed while running ({last_line(error)})") from error

    def node_times(self) -> dict[str, NodeTime]:
        """Means over all runs: OpenVINO keeps nothing else."""
        found = self._request.get_profiling_info()
        if not found:
            return super().node_times()
        return {each.node_name: NodeTime(each.exec_type, each.real_time.total_seconds() * 1e3) for each in found}


def _settings(options: SessionOptions) -> dict[str, Any]:
    # Left alone, OpenVINO rounds FP32 graphs to bfloat16 where the processor is fast at it: not what was measured.
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if options.requests > 1:
        settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": options.requests}
        options = replace(options, threads=options.requests * (options.threads or 1))
    if options.cores:
        settings["ENABLE_CPU_PINNING"] = True
    if options.node_times:
        settings["PERF_COUNT"] = True
    if options.flush_denormals:
        settings["CPU_DENORMALS_OPTIMIZATION"] = True
    return settings if options.threads is None else settings | {"INFERENCE_NUM_THREADS": options.threads}


def _loaded(step: Callable[[str], Any], path: Path) -> Any:
    try:
        return step(str(path))
    except RuntimeError as error:
        if path.suffix == ".onnx":
            require_weights(path)
        raise ModelError(
            f"openvino cannot load {path} ({last_line(error)})",
            allowed="a model whose operators OpenVINO has",
            remedy="use --backend onnxruntime, or export it again",
        ) from error


def _spec(port: Any, path: Path) -> TensorSpec:
    if port.partial_shape.is_dynamic:
        raise ModelError(
            f"{path}: {port.any_name!r} has shape {port.partial_shape}",
            allowed="fixed sizes",
            remedy="export it with a fixed batch and image size: eightfold export",
        )
    name, kind = port.any_name, port.element_type.get_type_name()
    if kind not in DTYPES:
        raise ModelError(f"{path}: {name!r} is a {kind}", allowed=", ".join(sorted(DTYPES)))
    return spec_of(name, DTYPES[kind], port.shape)
