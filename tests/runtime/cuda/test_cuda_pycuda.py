"""PyCUDA's side, against a stand-in with the names that `pycuda.driver` has (src/wrapper/wrap_cudadrv.cpp)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.errors import BackendError
from eightfold.runtime.cuda.cuda_pycuda import PyCuda


class DriverError(Exception):
    pass


class Allocation:
    def __init__(self, size: int) -> None:
        if size > 1000:
            raise DriverError("cuMemAlloc failed: out of memory")
        self.block = np.full(size, 0xCD, np.uint8)
        self.freed = 0

    def __int__(self) -> int:
        return self.block.ctypes.data

    def free(self) -> None:
        self.freed += 1


class FakeDriver:
    Error = DriverError

    def __init__(self) -> None:
        self.blocks: dict[int, Allocation] = {}
        self.log: list[str] = []

    def init(self) -> None:
        self.log.append("init")

    def Device(self, ordinal: int) -> Any:
        if ordinal:
            raise DriverError("cuDeviceGet failed: invalid device ordinal")
        context = SimpleNamespace(push=lambda: self.log.append("push"))
        return SimpleNamespace(retain_primary_context=lambda: context, compute_capability=lambda: (7, 2))

    def mem_alloc(self, size: int) -> Allocation:
        block = Allocation(size)
        self.blocks[int(block)] = block
        return block

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return np.full(shape, 9, dtype)

    def Stream(self) -> Any:
        return SimpleNamespace(handle=5, synchronize=lambda: self.log.append("synchronize"))

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: Any) -> None:
        self.blocks[dest].block[: src.nbytes] = src.ravel().view(np.uint8)

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: Any) -> None:
        dest.ravel().view(np.uint8)[:] = self.blocks[src].block[: dest.nbytes]


def test_bytes_go_there_and_back() -> None:
    driver = FakeDriver()
    cuda = PyCuda(0, driver)
    array = cuda.pinned((2, 3), "float32")
    assert not array.any()
    buffer, stream = cuda.allocate(array.nbytes), cuda.stream()
    array[:] = 7
    stream.upload(buffer, array)
    array[:] = 0
    stream.download(array, buffer)
    stream.synchronize()
    assert (array == 7).all()
    assert stream.record(lambda: None) is None
    assert (cuda.compute_capability(), stream.handle) == ("7.2", 5)
    assert driver.log == ["init", "push", "synchronize"]


def test_a_buffer_is_freed_once() -> None:
    driver = FakeDriver()
    buffer = PyCuda(0, driver).allocate(10)
    block = driver.blocks[buffer.address]
    buffer.close()
    buffer.close()
    del buffer
    assert block.freed == 1


def test_failures_are_of_the_error_family() -> None:
    with pytest.raises(BackendError, match=r"no CUDA device 3 .*invalid device ordinal"):
        PyCuda(3, FakeDriver())
    with pytest.raises(BackendError, match="CUDA failed: cuMemAlloc failed: out of memory"):
        PyCuda(0, FakeDriver()).allocate(2000)
