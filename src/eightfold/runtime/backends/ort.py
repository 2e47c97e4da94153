"""ONNX Runtime. The only module of the runtime that imports onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.errors import BackendError, ModelError
from eightfold.extras import installed, require
from eightfold.runtime.backends.base import (
    Array,
    Arrays,
    Backend,
    Session,
    SessionOptions,
    Slot,
    empty_like,
    first_line,
)
from eightfold.runtime.manifest import TensorSpec

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
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
    name = "onnxruntime"
    formats = ("onnx",)

    def absent(self) -> str | None:
        return None if installed("onnxruntime") else "onnxruntime is not installed (pip install 'eightfold[cpu]')"

    def open(self, path: Path, options: SessionOptions) -> Session:
        return OrtSession(path, options)


class OrtSession(Session):
    backend = "onnxruntime"

    def __init__(self, path: Path, options: SessionOptions) -> None:
        ort = require("onnxruntime", "run ONNX models")
        self.version = ort.__version__
        self.provider = options.provider
        self.threads = options.threads
        self.raw = _open(ort, path, options)
        self._run_options = ort.RunOptions()
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
            self._bind_input(name, array)
        for name, array in self.outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> None:
        try:
            self._session.raw.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises classes of its own without a common base but Exception
            raise BackendError(f"onnxruntime failed while running ({first_line(error)})") from error

    def run_on(self, arrays: Arrays) -> None:
        """Without copying, where an array is contiguous: its memory is bound for this call."""
        for name in self.inputs:
            self._bind_input(name, np.ascontiguousarray(arrays[name]))
        try:
            self.run()
        finally:
            for name, array in self.inputs.items():
                self._bind_input(name, array)

    def _bind_input(self, name: str, array: Array) -> None:
        self._binding.bind_cpu_input(name, array)


def _open(ort: Any, path: Path, options: SessionOptions) -> onnxruntime.InferenceSession:
    chosen = ort.SessionOptions()
    chosen.log_severity_level = 3  # its warnings speak of graph internals a user cannot act on
    if options.threads is not None:
        chosen.intra_op_num_threads = options.threads
    providers = _providers(ort, options)
    try:
        return ort.InferenceSession(str(path), chosen, providers=providers)
    except Exception as error:  # see OrtSlot.run
        raise ModelError(
            f"onnxruntime cannot load {path} ({first_line(error)})",
            allowed=f"an ONNX model that onnxruntime {ort.__version__} supports",
            remedy="export it again, or install a newer onnxruntime",
        ) from error


def _providers(ort: Any, options: SessionOptions) -> list[str | tuple[str, dict[str, Any]]]:
    wanted, present = PROVIDERS[options.provider], ort.get_available_providers()
    if wanted not in present:
        raise BackendError(
            f"this onnxruntime has no {wanted}",
            allowed=", ".join(name for name, provider in PROVIDERS.items() if provider in present),
            remedy="install onnxruntime-gpu for 'cuda' and 'tensorrt'",
        )
    if options.provider == "cpu":
        return [wanted]
    return [(wanted, {"device_id": options.device}), PROVIDERS["cpu"]]


def _spec(node: Any, path: Path) -> TensorSpec:
    if not all(isinstance(size, int) and size > 0 for size in node.shape):
        raise ModelError(
            f"{path}: {node.name!r} has shape {node.shape}",
            allowed="fixed sizes",
            remedy="export it with a fixed batch and image size: eightfold export",
        )
    if node.type not in DTYPES:
        raise ModelError(f"{path}: {node.name!r} is a {node.type}", allowed=", ".join(sorted(DTYPES)))
    return TensorSpec(name=node.name, dtype=DTYPES[node.type], shape=tuple(node.shape))
