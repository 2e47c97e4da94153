"""Backends by name. Importing this imports none of their libraries."""

from __future__ import annotations

from pathlib import Path

from eightfold.errors import BackendError, UnknownNameError
from eightfold.runtime.backends.base import Backend, Session, SessionOptions
from eightfold.runtime.backends.openvino import OpenVinoBackend
from eightfold.runtime.backends.ort import OrtBackend
from eightfold.runtime.backends.tensorrt import TensorRtBackend

_ALL: tuple[Backend, ...] = (
    OrtBackend("onnxruntime", "CPUExecutionProvider"),
    OrtBackend("onnxruntime-cuda", "CUDAExecutionProvider"),
    OrtBackend("onnxruntime-tensorrt", "TensorrtExecutionProvider"),
    OpenVinoBackend(),
    TensorRtBackend("tensorrt", "tensorrt"),
    TensorRtBackend("tensorrt-rtx", "tensorrt_rtx"),
)
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}


# Modules above the runtime that registered backends; a process of its own imports them again.
REGISTERED: list[str] = []


def register_backend(backend: Backend, module: str) -> None:
    """Add a backend from above the runtime, whose library the runtime itself must not import.

    Args:
        module: registers it when imported.
    """
    BACKENDS[backend.name] = backend
    if module not in REGISTERED:
        REGISTERED.append(module)


def backend_named(name: str) -> Backend:
    """The backend, if it can be used on this machine."""
    if name not in BACKENDS:
        raise UnknownNameError.of("backend", name, BACKENDS)
    reason = BACKENDS[name].absent()
    if reason:
        raise BackendError(f"backend {name!r} cannot be used here: {reason}", allowed=", ".join(usable_backends()))
    return BACKENDS[name]


def usable_backends() -> list[str]:
    """Names of the back ends that work on this machine."""
    return [name for name, backend in BACKENDS.items() if backend.absent() is None]


def open_session(path: Path, backend: str, options: SessionOptions | None = None) -> Session:
    """Load a model file with a backend."""
    return backend_named(backend).open(path, options or SessionOptions())
