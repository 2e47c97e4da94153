from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from eightfold.export.tensorrt.device import BuildGpu, building_gpu

AT = "eightfold.export.tensorrt.device"


def test_the_gpu_is_current_while_it_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[int] = []

    @contextlib.contextmanager
    def active() -> Iterator[None]:
        current.append(1)
        yield
        current.pop()

    cuda = SimpleNamespace(active=active, device_name=lambda: "Orin Nano", compute_capability=lambda: "8.7")
    monkeypatch.setattr(f"{AT}.cuda_absent", lambda: None)
    monkeypatch.setattr(f"{AT}.open_cuda", lambda number: [None, cuda][number])
    with building_gpu(1) as gpu:
        assert current == [1]
        assert gpu == BuildGpu("Orin Nano", "8.7")
    assert current == []


def test_without_a_cuda_library_the_driver_tells_of_an_only_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi does not number them as CUDA does: which of two TensorRT takes is not known."""
    monkeypatch.setattr(f"{AT}.cuda_absent", lambda: "no library")
    gpus = [SimpleNamespace(name="RTX 3060", compute_capability="8.6")]
    monkeypatch.setattr(f"{AT}.read_gpus", lambda _: gpus)
    with building_gpu(0) as gpu:
        assert gpu == BuildGpu("RTX 3060", "8.6")
    gpus.append(SimpleNamespace(name="RTX 4090", compute_capability="8.9"))
    with building_gpu(0) as gpu:
        assert gpu == BuildGpu()
