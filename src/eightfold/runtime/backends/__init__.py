"""Backends by name. Importing this imports none of their libraries."""

from __future__ import annotations

from pathlib import Path

from eightfold.errors import BackendError, UnknownNameError, UsageError
from eightfold.runtime.backends.base import Backend, Session, SessionOptions
from eightfold.runtime.backends.openvino import OpenVinoBackend
from eightfold.runtime.backends.ort import OrtBackend
from eightfold.runtime.backends.tensorrt import TensorRtBackend

_ALL: tuple[Backend, ...] = (
    OrtBackend("onnxruntime", "CPUExecutionProvider", rank=10),
    OrtBackend("onnxruntime-cuda", "CUDAExecutionProvider", rank=3),
    OrtBackend("onnxruntime-tensorrt", "TensorrtExecutionProvider", rank=2, targets=("tensorrt",)),
    OpenVinoBackend(),
    TensorRtBackend("tensorrt", "tensorrt", rank=0, targets=("tensorrt", "tensorrt-dla")),
    TensorRtBackend("tensorrt-rtx", "tensorrt_rtx", rank=1, targets=("rtx",)),
)
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}


# Modules that registered backends; a process of its own imports them again.
REGISTERED: list[str] = []


def register_backend(backend: Backend, module: str = "") -> None:
    """Make a back end known to everything that chooses, runs or measures. A name that is taken is refused.

    Args:
        module: registers it when imported; with it, memory is measured in a process of its own.
    """
    if backend.name in BACKENDS:
        raise UsageError(f"the back end {backend.name!r} exists", allowed="a new name", remedy="choose another name")
    BACKENDS[backend.name] = backend
    if module and module not in REGISTERED:
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
