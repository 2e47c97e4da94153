"""CUDA through cuda-python (the runtime API of `cuda.bindings`). Nothing else imports it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eightfold.arrays import Array
from eightfold.errors import BackendError
from eightfold.runtime.backends.cuda.base import Cuda, CudaGraph, DeviceBuffer, Handle, Stream, nbytes_of

NON_BLOCKING = 1  # cudaStreamNonBlocking
PORTABLE = 1  # cudaHostAllocPortable: pinned for every context


_NOTHING = contextlib.nullcontext()


class CudaPython(Cuda):
    """One device through cuda-python."""

    library = "cuda-python"

    def __init__(self, device: int, runtime: Any = None) -> None:
        self.runtime = runtime or importlib.import_module("cuda.bindings.runtime")
        self._device = device
        self._active = threading.local()
        count = self.call("cudaGetDeviceCount")
        if device >= count:
            raise BackendError(f"there is no CUDA device {device}", allowed=f"0 to {count - 1}")
        self.active()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime API, whose answers begin with an error code."""
        error, *results = getattr(self.runtime, name)(*arguments)
        if int(error) != 0:
            _, text = self.runtime.cudaGetErrorString(error)
            raise BackendError(f"{name} failed: {text.decode()}", remedy="run: eightfold doctor")
        return results[0] if len(results) == 1 else results

    def release(self, name: str) -> Callable[[Any], object]:
        """For finalizers: errors there have no one to go to, and at exit the driver may be gone before us."""
        return getattr(self.runtime, name)  # type: ignore[no-any-return]

    def active(self) -> contextlib.AbstractContextManager[object]:
        # Once set, it stays the thread's device, as for every other library that uses the runtime API.
        if not getattr(self._active, "done", False):
            self.call("cudaSetDevice", self._device)
            self._active.done = True
        return _NOTHING

    def allocate(self, nbytes: int) -> DeviceBuffer:
        address = self.call("cudaMalloc", max(nbytes, 1))
        return DeviceBuffer(address, int(address), nbytes, self.release("cudaFree"))

    def pinned(self, shape: Sequence[int], dtype: str) -> Array:
        nbytes = max(nbytes_of(shape, dtype), 1)
        address = self.call("cudaHostAlloc", nbytes, PORTABLE)
        memory = (ctypes.c_ubyte * nbytes).from_address(int(address))
        weakref.finalize(memory, self.release("cudaFreeHost"), address)
        array: Array = np.frombuffer(memoryview(memory).cast("B"), np.dtype(dtype), int(np.prod(shape, dtype=np.int64)))
        array[...] = 0
        return array.reshape(tuple(shape))

    def stream(self) -> Stream:
        return CudaPythonStream(self)

    def compute_capability(self) -> str:
        attribute = self.runtime.cudaDeviceAttr
        major = self.call("cudaDeviceGetAttribute", attribute.cudaDevAttrComputeCapabilityMajor, self._device)
        minor = self.call("cudaDeviceGetAttribute", attribute.cudaDevAttrComputeCapabilityMinor, self._device)
        return f"{major}.{minor}"

    def device_name(self) -> str:
        name: bytes = self.call("cudaGetDeviceProperties", self._device).name
        return name.decode()


class CudaPythonStream(Stream):
    """A stream of cuda-python."""

    def __init__(self, cuda: CudaPython) -> None:
        self._cuda = cuda
        self._stream = Handle(cuda.call("cudaStreamCreateWithFlags", NON_BLOCKING), cuda.release("cudaStreamDestroy"))
        self.handle = int(self._stream.value)

    def upload(self, buffer: DeviceBuffer, array: Array) -> None:
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda.call("cudaMemcpyAsync", buffer.address, array.ctypes.data, array.nbytes, kind, self._stream.value)

    def download(self, array: Array, buffer: DeviceBuffer) -> None:
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda.call("cudaMemcpyAsync", array.ctypes.data, buffer.address, array.nbytes, kind, self._stream.value)

    def synchronize(self) -> None:
        self._cuda.call("cudaStreamSynchronize", self._stream.value)

    def record(self, work: Callable[[], object]) -> CudaGraph | None:
        # Relaxed: other threads may allocate meanwhile without spoiling the recording.
        mode = self._cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        self._cuda.call("cudaStreamBeginCapture", self._stream.value, mode)
        try:
            work()
        except BackendError:
            with contextlib.suppress(BackendError):  # the recording is spoilt; ending it says so once more
                self._cuda.call("cudaStreamEndCapture", self._stream.value)
            return None
        try:
            recorded = self._cuda.call("cudaStreamEndCapture", self._stream.value)
            return CudaPythonGraph(self._cuda, self._stream, recorded)
        except BackendError:
            return None


class CudaPythonGraph(CudaGraph):
    """A recorded graph of cuda-python."""

    def __init__(self, cuda: CudaPython, stream: Handle, recorded: Any) -> None:
        self._cuda, self._stream = cuda, stream
        template = Handle(recorded, cuda.release("cudaGraphDestroy"))
        self._started = Handle(cuda.call("cudaGraphInstantiate", recorded, 0), cuda.release("cudaGraphExecDestroy"))
        template.close()

    def launch(self) -> None:
        self._cuda.call("cudaGraphLaunch", self._started.value, self._stream.value)
