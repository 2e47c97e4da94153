"""The stand-ins have nothing that the real modules lack."""

from __future__ import annotations

import inspect
from typing import Any

import pytest


def public(thing: Any) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_cuda_python(cuda_runtime: Any) -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    for name, function in inspect.getmembers(type(cuda_runtime), inspect.isfunction):
        if not name.startswith("cuda"):
            continue
        wanted = (getattr(real, name).__doc__ or "").splitlines()[0].partition("(")[2].rpartition(")")[0]
        assert len(inspect.signature(function).parameters) - 1 == len([part for part in wanted.split(",") if part]), (
            name
        )
    for name in ("cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceAttr"):
        for member, value in vars(getattr(cuda_runtime, name)).items():
            assert int(getattr(getattr(real, name), member)) == value


def test_tensorrt(tensorrt_module: Any) -> None:
    real = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    engine = tensorrt_module.Runtime(None).deserialize_cuda_engine(b"engine")
    fakes = {"ICudaEngine": type(engine), "IExecutionContext": type(engine.create_execution_context())}
    fakes["Runtime"] = tensorrt_module.Runtime.__bases__[0]
    for name, fake in fakes.items():
        assert public(fake) - {"cuda"} <= set(dir(getattr(real, name)))
    assert {"INPUT", "OUTPUT"} <= set(real.TensorIOMode.__members__)
    assert hasattr(real.Logger, "ERROR")
    names = set(real.DataType.__members__)
    from eightfold.runtime.backends.tensorrt import DTYPES

    assert set(DTYPES) <= names
