"""Device buffers, pinned host memory, streams and graphs, for what runs on an NVIDIA GPU.

Ownership: `DeviceBuffer`, `Stream` and `CudaGraph` release with their last reference, a buffer also on `close()`; a
pinned array lives as long as numpy views of it. Thread safety: everything is done inside `with cuda.active():`, in
whichever thread.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from eightfold.arrays import Array


class Handle:
    """Something that must be given back exactly once."""

    def __init__(self, value: Any, release: Callable[[Any], object]) -> None:
        self.value = value
        self._release = weakref.finalize(self, release, value)

    def close(self) -> None:
        """Release it now; later calls do nothing."""
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


class CudaGraph(ABC):
    """A recorded sequence of work, started as one."""

    @abstractmethod
    def launch(self) -> None:
        """Start the recorded work."""


class Stream(ABC):
    """Work on a device, in order. `handle` is what other libraries call it by."""

    handle: int

    @abstractmethod
    def upload(self, buffer: DeviceBuffer, array: Array) -> None:
        """Begin to copy a pinned array to the device."""

    @abstractmethod
    def download(self, array: Array, buffer: DeviceBuffer) -> None:
        """Begin to copy from the device into a pinned array."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything begun is done."""

    @abstractmethod
    def record(self, work: Callable[[], object]) -> CudaGraph | None:
        """Record what `work` begins on this stream; None where the library or the work does not allow it."""


class Cuda(ABC):
    """One device, through one of the two libraries."""

    library: str

    @abstractmethod
    def active(self) -> AbstractContextManager[object]:
        """Makes the device current in the calling thread. Cheap, and may be nested."""

    @abstractmethod
    def allocate(self, nbytes: int) -> DeviceBuffer:
        """New device memory."""

    @abstractmethod
    def pinned(self, shape: Sequence[int], dtype: str) -> Array:
        """A zeroed array in page-locked host memory, which the device can read at full speed."""

    @abstractmethod
    def stream(self) -> Stream:
        """A new stream."""

    @abstractmethod
    def compute_capability(self) -> str:
        """As "8.7"."""

    @abstractmethod
    def device_name(self) -> str:
        """As "Orin" or "NVIDIA GeForce RTX 3060"."""


def nbytes_of(shape: Sequence[int], dtype: str) -> int:
    """Size of a tensor in bytes."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
