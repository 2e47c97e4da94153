"""Stand-ins for CUDA and TensorRT, whose device is host memory. They have nothing that the real modules lack: a name
that is not written here raises AttributeError, and `test_fakes.py` holds what is written here to the real ones."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SUCCESS, FAILURE = 0, 2


class FakeCudaRuntime:
    """`cuda.bindings.runtime`. Work on a stream waits until the stream is synchronized, as on a device."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.pending: list[Callable[[], object]] = []
        self.recording: list[Callable[[], object]] | None = None
        self.graphs: dict[int, list[Callable[[], object]]] = {}
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeRelaxed=2)
        self.cudaDeviceAttr = SimpleNamespace(
            cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
        )

    def begin(self, work: Callable[[], object]) -> None:
        (self.pending if self.recording is None else self.recording).append(work)

    def _answer(self, name: str, *results: Any) -> tuple[Any, ...]:
        self.calls.append(name)
        return (FAILURE if name in self.failing else SUCCESS, *results)

    def _reserve(self, size: int) -> int:
        block = ctypes.create_string_buffer(b"\xcd" * size, size)  # not zero: fresh device memory is not
        address = ctypes.addressof(block)
        self.memory[address] = block
        return address

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return self._answer("cudaGetDeviceCount", 1)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return SUCCESS, b"out of memory"

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        return self._answer("cudaSetDevice")

    def cudaDeviceGetAttribute(self, attr: int, device: int) -> tuple[Any, ...]:
        return self._answer("cudaDeviceGetAttribute", {75: 8, 76: 6}[attr])

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return self._answer("cudaGetDeviceProperties", SimpleNamespace(name=b"Orin Nano"))

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._answer("cudaMalloc", self._reserve(size))

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        del self.memory[devPtr]
        return self._answer("cudaFree")

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._answer("cudaHostAlloc", self._reserve(size))

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        del self.memory[ptr]
        return self._answer("cudaFreeHost")

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: int, stream: int) -> tuple[Any, ...]:
        self.begin(lambda: ctypes.memmove(dst, src, count))
        return self._answer("cudaMemcpyAsync")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._answer("cudaStreamCreateWithFlags", 7)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return self._answer("cudaStreamDestroy")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        for work in self.pending:
            work()
        self.pending.clear()
        return self._answer("cudaStreamSynchronize")

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self.recording = []
        return self._answer("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        recorded, self.recording = self.recording, None
        assert recorded is not None
        self.graphs[len(self.graphs)] = recorded
        return self._answer("cudaStreamEndCapture", len(self.graphs) - 1)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        self.graphs[len(self.graphs)] = self.graphs[graph]
        return self._answer("cudaGraphInstantiate", len(self.graphs) - 1)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        return self._answer("cudaGraphDestroy")

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> tuple[Any, ...]:
        self.pending += self.graphs[graphExec]
        return self._answer("cudaGraphLaunch")

    def cudaGraphExecDestroy(self, graphExec: int) -> tuple[Any, ...]:
        return self._answer("cudaGraphExecDestroy")


def view(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 "device" memory as an array."""
    count = int(np.prod(shape))
    block = (ctypes.c_float * count).from_address(address)
    return np.frombuffer(memoryview(block).cast("B"), np.float32).reshape(shape)


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ICudaEngine:
    """Doubles its input "images" (2, 3) into "doubled"."""

    num_io_tensors = 2

    def __init__(self, cuda: FakeCudaRuntime) -> None:
        self._cuda = cuda

    def get_tensor_name(self, index: int) -> str:
        return ("images", "doubled")[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return {"images": TensorIOMode.INPUT, "doubled": TensorIOMode.OUTPUT}[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (2, 3)

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext(self._cuda)


class IExecutionContext:
    def __init__(self, cuda: FakeCudaRuntime) -> None:
        self._cuda = cuda
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        source, target = view(self._addresses["images"], (2, 3)), view(self._addresses["doubled"], (2, 3))
        self._cuda.begin(lambda: np.multiply(source, 2, out=target))
        return "execute_async_v3" not in self._cuda.failing


class Logger:
    ERROR = 1

    def __init__(self, min_severity: int) -> None:
        pass


class Runtime:
    cuda: FakeCudaRuntime
    engine_host_code_allowed = False

    def __init__(self, logger: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        runs = serialized_engine == b"engine" or (serialized_engine == b"host code" and self.engine_host_code_allowed)
        return ICudaEngine(self.cuda) if runs else None


@pytest.fixture
def cuda_runtime() -> FakeCudaRuntime:
    return FakeCudaRuntime()


@pytest.fixture
def tensorrt_module(cuda_runtime: FakeCudaRuntime) -> Any:
    runtime = type("Runtime", (Runtime,), {"cuda": cuda_runtime})
    return SimpleNamespace(
        __name__="tensorrt", __version__="10.3.0", Logger=Logger, Runtime=runtime, TensorIOMode=TensorIOMode
    )


@pytest.fixture
def engine_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    return path


@pytest.fixture
def write_sidecar(engine_path: Path) -> Callable[..., None]:
    def write(**changes: Any) -> None:
        record = {"builder": "tensorrt", "builder_version": "10.3.0", "compute_capability": "8.6"} | changes
        Path(f"{engine_path}.json").write_text(json.dumps(record))

    return write
