"""ONNX Runtime. The only module of the runtime that imports onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Arrays
from eightfold.errors import BackendError, ModelError, first_line
from eightfold.extras import installed, require
from eightfold.onnx_graph.onnx_references import require_weights
from eightfold.onnx_graph.tensor_specs import TensorSpec, spec_of
from eightfold.runtime.backends.base import Backend, NodeTime, Session, SessionOptions, Slot, empty_like
from eightfold.runtime.backends.cuda_memory import cuda_driver_absent
from eightfold.runtime.backends.ort_node_times import node_times_of
from eightfold.runtime.backends.ort_providers import CPU, providers_of
from eightfold.scratch import scratch_folder_of

if TYPE_CHECKING:
    import onnxruntime

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OrtBackend(Backend):
    """onnxruntime with one of its execution providers; the CPU's takes over what the provider cannot do."""

    formats = ("onnx",)
    module = "onnxruntime"

    def __init__(self, name: str, provider: str, *, rank: int, targets: tuple[str, ...] = ()) -> None:
        self.name = name
        self.rank = rank
        self.targets = targets
        self.on_gpu = provider != CPU
        self.runs_cpu_targets = provider == CPU
        self._provider = provider

    def absent(self) -> str | None:
        if not installed("onnxruntime"):
            return "onnxruntime is not installed (pip install 'eightfold[cpu]')"
        if self._provider == CPU:
            return None
        # Importing onnxruntime takes a while: not where there can be no GPU.
        return cuda_driver_absent() or self._lacks_provider()

    def open(self, path: Path, options: SessionOptions) -> Session:
        return OrtSession(self.name, path, self._provider, options)

    def _lacks_provider(self) -> str | None:
        present = require("onnxruntime", "run ONNX models").get_available_providers()
        if self._provider in present:
            return None
        return f"this onnxruntime has no {self._provider} (pip install onnxruntime-gpu)"


class OrtSession(Session):
    """A session of onnxruntime."""

    def __init__(self, backend: str, path: Path, provider: str, options: SessionOptions) -> None:
        ort = require("onnxruntime", "run ONNX models")
        self.backend, self.version, self.provider = backend, ort.__version__, provider
        self.threads, self.pinned = options.threads, _is_pinned(options)
        self.scope = "model" if provider == CPU else "model+copies"
        self.traces = scratch_folder_of(self) if options.node_times else None
        self.raw = _open(ort, path, provider, options, self.traces)
        _check_started(provider, self.raw.get_providers())
        self.inputs = tuple(_spec(node, path) for node in self.raw.get_inputs())
        self.outputs = tuple(_spec(node, path) for node in self.raw.get_outputs())

    def new_slot(self) -> Slot:
        return OrtSlot(self)


class OrtSlot(Slot):
    """Inputs and outputs bound once. The binding holds addresses, so the arrays live as long as the slot."""

    def __init__(self, session: OrtSession) -> None:
        self._session = session
        self._binding = session.raw.io_binding()
        self.inputs = {spec.name: empty_like(spec) for spec in session.inputs}
        self.outputs = {spec.name: empty_like(spec) for spec in session.outputs}
        for name, array in self.inputs.items():
            self._binding.bind_cpu_input(name, array)
        for name, array in self.outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> None:
        try:
            self._session.raw.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises classes of its own without a common base but Exception
            raise BackendError(f"onnxruntime failed while running ({first_line(error)})") from error

    def run_on(self, arrays: Arrays) -> None:
        """Without copying, where an array is contiguous: its memory is bound for this call."""
        bind = self._binding.bind_cpu_input
        for name, buffer in self.inputs.items():
            array = arrays[name]
            if array.flags.c_contiguous:
                bind(name, array)
            else:
                np.copyto(buffer, array)
        try:
            self.run()
        finally:
            for name, buffer in self.inputs.items():
                bind(name, buffer)

    def node_times(self) -> dict[str, NodeTime]:
        return super().node_times() if self._session.traces is None else node_times_of(self._session.raw)


def _is_pinned(options: SessionOptions) -> bool:
    return options.threads is not None and len(options.cores) >= options.threads


def _open(
    ort: Any, path: Path, provider: str, options: SessionOptions, traces: Path | None
) -> onnxruntime.InferenceSession:
    chosen = ort.SessionOptions()
    if traces is not None:
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(traces / "trace")
    chosen.log_severity_level = 4  # its errors are raised as well, and warnings speak of the insides of graphs
    if options.threads is not None:
        chosen.intra_op_num_threads = options.threads
    if _is_pinned(options) and options.threads != 1:
        # Of all threads but the caller's; it counts cores from 1.
        others = ";".join(str(core + 1) for core in options.cores[1 : options.threads])
        chosen.add_session_config_entry("session.intra_op_thread_affinities", others)
    if options.flush_denormals:
        chosen.add_session_config_entry("session.set_denormal_as_zero", "1")
    providers = providers_of(provider, path, ort.__version__, options)
    try:
        return ort.InferenceSession(str(path), chosen, providers=providers)
    except Exception as error:  # see OrtSlot.run
        require_weights(path)
        raise ModelError(
            f"onnxruntime cannot load {path} ({first_line(error)})",
            allowed=f"an ONNX model that onnxruntime {ort.__version__} supports",
            remedy="export it again, or install a newer onnxruntime",
        ) from error


def _check_started(provider: str, started: list[str]) -> None:
    """A provider whose libraries are missing makes onnxruntime run on the CPU with no more than a line in its log."""
    if provider not in started:
        raise BackendError(
            f"onnxruntime could not start {provider}, and would run on {', '.join(started)} instead",
            allowed="a machine with the CUDA, cuDNN or TensorRT libraries that this onnxruntime was built for",
            remedy="install them, or use --backend onnxruntime",
        )


def _spec(node: Any, path: Path) -> TensorSpec:
    if not all(isinstance(size, int) and size > 0 for size in node.shape):
        raise ModelError(
            f"{path}: {node.name!r} has shape {node.shape}",
            allowed="fixed sizes",
            remedy="export it with a fixed batch and image size: eightfold export; where the graph counts the rows "
            "of an output (NonMaxSuppression), end it before that operator",
        )
    if node.type not in DTYPES:
        raise ModelError(f"{path}: {node.name!r} is a {node.type}", allowed=", ".join(sorted(DTYPES)))
    return spec_of(node.name, DTYPES[node.type], node.shape)
