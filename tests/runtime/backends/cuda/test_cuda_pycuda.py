"""PyCUDA's side, against a stand-in with the names and the rules of `pycuda.driver` (src/cpp/cuda.hpp): what needs a
context raises without one, and a context left on a thread's stack ends the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.errors import BackendError
from eightfold.runtime.backends.cuda.cuda_pycuda import PyCuda
from eightfold.runtime.backends.tensorrt import TensorRtSession
from tests.runtime.backends.conftest import FakeCudaRuntime, ICudaEngine, TensorIOMode


class DriverError(Exception):
    pass


class Allocation:
    """`DeviceAllocation`."""

    def __init__(self, size: int) -> None:
        if size > 1000:
            raise DriverError("cuMemAlloc failed: out of memory")
        self.block = np.full(size, 0xCD, np.uint8)
        self.freed = 0

    def __int__(self) -> int:
        return self.block.ctypes.data

    def free(self) -> None:
        self.freed += 1


class FakeStream:
    """`Stream`. Work waits until it is synchronized."""

    handle = 5

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def synchronize(self) -> None:
        self._driver.need_context()
        for work in self._driver.pending:
            work()
        self._driver.pending.clear()


class FakeContext:
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def push(self) -> None:
        self._driver.stack.append(self)

    def pop(self) -> None:
        self._driver.stack.pop()


class FakeDevice:
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def retain_primary_context(self) -> FakeContext:
        return FakeContext(self._driver)

    def compute_capability(self) -> tuple[int, int]:
        return 7, 2

    def name(self) -> str:
        return "Xavier"


class FakeDriver:
    Error = DriverError

    def __init__(self) -> None:
        self.blocks: dict[int, Allocation] = {}
        self.pending: list[Callable[[], object]] = []
        self._initialized = False
        self._stacks: dict[int, list[FakeContext]] = {}

    @property
    def stack(self) -> list[FakeContext]:
        """The calling thread's."""
        return self._stacks.setdefault(threading.get_ident(), [])

    @property
    def left_behind(self) -> int:
        return sum(map(len, self._stacks.values()))

    def need_context(self) -> None:
        if not self.stack:
            raise DriverError("no currently active context?")

    def init(self) -> None:
        self._initialized = True

    def Device(self, number: int) -> FakeDevice:
        if number or not self._initialized:
            raise DriverError("cuDeviceGet failed: invalid device ordinal")
        return FakeDevice(self)

    def mem_alloc(self, bytes: int) -> Allocation:
        self.need_context()
        block = Allocation(bytes)
        self.blocks[int(block)] = block
        return block

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        self.need_context()
        return np.full(shape, 9, dtype)

    def Stream(self) -> FakeStream:
        self.need_context()
        return FakeStream(self)

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: FakeStream) -> None:
        self.need_context()
        block = self.blocks[dest].block
        self.pending.append(lambda: np.copyto(block[: src.nbytes], src.ravel().view(np.uint8)))

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: FakeStream) -> None:
        self.need_context()
        block = self.blocks[src].block
        self.pending.append(lambda: np.copyto(dest.ravel().view(np.uint8), block[: dest.nbytes]))


def test_bytes_go_there_and_back() -> None:
    driver = FakeDriver()
    cuda = PyCuda(0, driver)
    with cuda.active():
        array = cuda.pinned((2, 3), "float32")
        assert not array.any()
        buffer, stream = cuda.allocate(array.nbytes), cuda.stream()
        array[:] = 7
        stream.upload(buffer, array)
        stream.synchronize()
        array[:] = 0
        stream.download(array, buffer)
        stream.synchronize()
        assert (array == 7).all()
        assert stream.record(lambda: None) is None
    assert (cuda.compute_capability(), cuda.device_name(), stream.handle) == ("7.2", "Xavier", 5)
    assert driver.left_behind == 0


def test_no_thread_keeps_a_context_whatever_happens() -> None:
    driver = FakeDriver()
    cuda = PyCuda(0, driver)

    def work() -> None:
        with cuda.active(), cuda.active(), pytest.raises(BackendError):
            cuda.allocate(2000)

    for step in (work, threading.Thread(target=work).start):
        step()
    with pytest.raises(ZeroDivisionError), cuda.active():
        raise ZeroDivisionError
    assert driver.left_behind == 0


class Execution:
    """`IExecutionContext` that doubles "images" into "doubled" on PyCUDA's stream."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._driver.need_context()
        source, target = (
            self._driver.blocks[self._addresses[name]].block.view(np.float32) for name in ("images", "doubled")
        )
        self._driver.pending.append(lambda: np.multiply(source, 2, out=target))
        return True


class Engine(ICudaEngine):
    def __init__(self, driver: FakeDriver) -> None:
        super().__init__(FakeCudaRuntime())
        self._driver = driver

    def create_execution_context(self) -> Any:
        return Execution(self._driver)


def test_an_engine_runs_through_pycuda_from_any_thread(tmp_path: Path) -> None:
    driver, path = FakeDriver(), tmp_path / "model.engine"
    path.write_bytes(b"engine")
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: Engine(driver))
    module = SimpleNamespace(
        __name__="tensorrt",
        __version__="8.5.2",
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None}),
        Runtime=lambda logger: runtime,
        TensorIOMode=TensorIOMode,
    )
    session = TensorRtSession("tensorrt", module, PyCuda(0, driver), path)
    answers = []

    def work(value: float) -> None:
        slot = session.new_slot()
        slot.run_on({"images": np.full((2, 3), value, np.float32)})
        answers.append((value, slot.outputs["doubled"].copy()))

    for value in (1.0, 2.0, 3.0):
        thread = threading.Thread(target=work, args=(value,))
        thread.start()
        thread.join()
    assert len(answers) == 3
    assert all((doubled == 2 * value).all() for value, doubled in answers)
    assert driver.left_behind == 0


def test_a_buffer_is_freed_once() -> None:
    driver = FakeDriver()
    cuda = PyCuda(0, driver)
    with cuda.active():
        buffer = cuda.allocate(10)
    block = driver.blocks[buffer.address]
    buffer.close()
    buffer.close()
    del buffer
    assert block.freed == 1


def test_failures_are_of_the_error_family() -> None:
    with pytest.raises(BackendError, match=r"no CUDA device 3 .*invalid device ordinal"):
        PyCuda(3, FakeDriver())
    cuda = PyCuda(0, FakeDriver())
    with cuda.active(), pytest.raises(BackendError, match="CUDA failed: cuMemAlloc failed: out of memory"):
        cuda.allocate(2000)
