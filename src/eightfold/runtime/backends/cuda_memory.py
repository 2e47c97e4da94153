"""Device buffers, pinned host memory, streams and graphs, for what runs on an NVIDIA GPU.

Two libraries give access: cuda-python, and PyCUDA where the former has no wheel (old JetPacks). Only the modules of
`eightfold.runtime.backends.cuda` import them.

Ownership: `DeviceBuffer`, `Stream` and `Graph` release with their last reference, a buffer also on `close()`; a pinned
array lives as long as numpy views of it. Thread safety: everything is done inside `with cuda.active():`, in
whichever thread.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import BackendError
from eightfold.extras import installed

# One of these is there wherever a CUDA program can run: desktop and server drivers, Jetson, WSL.
DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")


class Handle:
    """Something that must be given back exactly once."""

    def __init__(self, value: Any, release: Callable[[Any], object]) -> None:
        self.value = value
        self._release = weakref.finalize(self, release, value)

    def close(self) -> None:
        self._release()


class DeviceBuffer(Handle):
    """Device memory.

    Attributes:
        address: device pointer.
        nbytes: its size.
    """

    def __init__(self, value: Any, address: int, nbytes: int, release: Callable[[Any], object]) -> None:
        super().__init__(value, release)
        self.address = address
        self.nbytes = nbytes


class Graph(ABC):
    """A recorded sequence of work, started as one."""

    @abstractmethod
    def launch(self) -> None: ...


class Stream(ABC):
    """Work on a device, in order. `handle` is what other libraries call it by."""

    handle: int

    @abstractmethod
    def upload(self, buffer: DeviceBuffer, array: NDArray[Any]) -> None:
        """Begin to copy a pinned array to the device."""

    @abstractmethod
    def download(self, array: NDArray[Any], buffer: DeviceBuffer) -> None:
        """Begin to copy from the device into a pinned array."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything begun is done."""

    @abstractmethod
    def record(self, work: Callable[[], object]) -> Graph | None:
        """Record what `work` begins on this stream; None where the library or the work does not allow it."""


class Cuda(ABC):
    """One device, through one of the two libraries."""

    library: str

    @abstractmethod
    def active(self) -> AbstractContextManager[object]:
        """Makes the device current in the calling thread. Cheap, and may be nested."""

    @abstractmethod
    def allocate(self, nbytes: int) -> DeviceBuffer: ...

    @abstractmethod
    def pinned(self, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """A zeroed array in page-locked host memory, which the device can read at full speed."""

    @abstractmethod
    def stream(self) -> Stream: ...

    @abstractmethod
    def compute_capability(self) -> str:
        """As "8.7"."""

    @abstractmethod
    def device_name(self) -> str:
        """As "Orin" or "NVIDIA GeForce RTX 3060"."""


def cuda_absent() -> str | None:
    """Why CUDA cannot be used here, or None when it probably can. Imports nothing and starts no driver."""
    missing = cuda_driver_absent()
    if missing is None and not (_has_cuda_python() or installed("pycuda")):
        return "neither cuda-python nor PyCUDA is installed (pip install 'eightfold[tensorrt]', or pip install pycuda)"
    return missing


def cuda_driver_absent() -> str | None:
    return None if any(Path(path).exists() for path in DRIVER_FILES) else "this machine has no NVIDIA driver"


def open_cuda(device: int = 0) -> Cuda:
    """The device with that number, through cuda-python if it is there, else PyCUDA.

    Raises BackendError when neither is there, or the device is not.
    """
    if _has_cuda_python():
        from eightfold.runtime.backends.cuda.cuda_python import CudaPython

        return CudaPython(device)
    if installed("pycuda"):
        from eightfold.runtime.backends.cuda.cuda_pycuda import PyCuda

        return PyCuda(device)
    raise BackendError(
        "neither cuda-python nor PyCUDA is installed",
        allowed="one of them",
        remedy="run: pip install 'eightfold[tensorrt]' (on an old JetPack: pip install pycuda)",
    )


def _has_cuda_python() -> bool:
    return installed("cuda") and installed("cuda.bindings.runtime")


def nbytes_of(shape: Sequence[int], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
