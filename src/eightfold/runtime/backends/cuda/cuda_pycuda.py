"""CUDA through PyCUDA, for boards without a cuda-python wheel. Nothing else imports it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eightfold.arrays import Array
from eightfold.errors import BackendError
from eightfold.runtime.backends.cuda.base import Cuda, CudaGraph, DeviceBuffer, Stream


class PyCuda(Cuda):
    """One device through PyCUDA."""

    library = "pycuda"

    def __init__(self, device: int, driver: Any = None) -> None:
        self.driver = driver or importlib.import_module("pycuda.driver")
        try:
            self.driver.init()
            self._device = self.driver.Device(device)
            # The primary context is the one that TensorRT uses.
            self._context = self._device.retain_primary_context()
        except self.driver.Error as error:
            raise BackendError(f"no CUDA device {device} ({error})", remedy="run: eightfold doctor") from error

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        # Popped each time: PyCUDA aborts the process when a thread ends with a context on its stack.
        self._checked(self._context.push)
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, nbytes: int) -> DeviceBuffer:
        memory = self._checked(self.driver.mem_alloc, max(nbytes, 1))
        return DeviceBuffer(memory, int(memory), nbytes, _free)

    def pinned(self, shape: Sequence[int], dtype: str) -> Array:
        array: Array = self._checked(self.driver.pagelocked_empty, tuple(shape), dtype)
        array[...] = 0
        return array

    def stream(self) -> Stream:
        return PyCudaStream(self)

    def compute_capability(self) -> str:
        major, minor = self._device.compute_capability()
        return f"{major}.{minor}"

    def device_name(self) -> str:
        return str(self._device.name())

    def _checked(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self.driver.Error as error:
            raise BackendError(f"CUDA failed: {error}", remedy="run: eightfold doctor") from error


def _free(memory: Any) -> None:
    memory.free()


class PyCudaStream(Stream):
    """A stream of PyCUDA; it records no graphs."""

    def __init__(self, cuda: PyCuda) -> None:
        self._cuda = cuda
        self._stream = cuda._checked(cuda.driver.Stream)
        self.handle = int(self._stream.handle)

    def upload(self, buffer: DeviceBuffer, array: Array) -> None:
        self._cuda._checked(self._cuda.driver.memcpy_htod_async, buffer.address, array, self._stream)

    def download(self, array: Array, buffer: DeviceBuffer) -> None:
        self._cuda._checked(self._cuda.driver.memcpy_dtoh_async, array, buffer.address, self._stream)

    def synchronize(self) -> None:
        self._cuda._checked(self._stream.synchronize)

    def record(self, work: Callable[[], object]) -> CudaGraph | None:
        return None  # PyCUDA cannot capture streams
