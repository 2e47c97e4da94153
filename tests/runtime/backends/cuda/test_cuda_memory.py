from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.errors import BackendError
from eightfold.runtime.backends import cuda_memory


def test_neither_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_memory, "installed", lambda module: False)
    with pytest.raises(BackendError, match=r"neither cuda-python nor PyCUDA is installed; .*eightfold\[tensorrt\]"):
        cuda_memory.open_cuda()


def test_why_cuda_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_memory, "DRIVER_FILES", (str(tmp_path / "none"),))
    assert cuda_memory.cuda_absent() == "this machine has no NVIDIA driver"
    monkeypatch.setattr(cuda_memory, "DRIVER_FILES", (str(tmp_path),))
    monkeypatch.setattr(cuda_memory, "installed", lambda module: False)
    assert "pip install pycuda" in (cuda_memory.cuda_absent() or "")
    monkeypatch.setattr(cuda_memory, "installed", lambda module: True)
    assert cuda_memory.cuda_absent() is None


def test_a_machine_without_a_driver_is_told_by_cuda_python_itself() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    if cuda_memory.cuda_absent() is None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match=r"cudaGetDeviceCount failed: .*; run: eightfold doctor"):
        cuda_memory.open_cuda()
