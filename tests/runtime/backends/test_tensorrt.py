from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.errors import BackendError, ModelError
from eightfold.files import sha256_of_file
from eightfold.runtime.backends import BACKENDS, usable_backends
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.backends.cuda.cuda_python import CudaPython
from eightfold.runtime.backends.tensorrt import TensorRtSession

WriteSidecar = Callable[..., None]


@pytest.fixture
def session(cuda_runtime: Any, tensorrt_module: Any, engine_path: Path) -> TensorRtSession:
    return TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)


def test_specs_come_from_the_engine(session: TensorRtSession) -> None:
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [("images", "float32", (2, 3))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.outputs] == [("doubled", "float32", (2, 3))]
    assert (session.version, session.scope) == ("10.3.0", "model+copies")


def test_a_run_copies_in_computes_and_copies_out(session: TensorRtSession) -> None:
    slot = session.new_slot()
    for value in (1.0, 5.0):
        slot.inputs["images"][:] = value
        slot.run()
        assert (slot.outputs["doubled"] == 2 * value).all()
    slot.run_on({"images": np.full((2, 3), 7, np.float32)})
    assert (slot.outputs["doubled"] == 14).all()


def test_after_the_first_run_a_graph_is_launched(session: TensorRtSession, cuda_runtime: Any) -> None:
    slot = session.new_slot()
    cuda_runtime.calls.clear()
    slot.run()
    assert cuda_runtime.calls == ["cudaGraphLaunch", "cudaStreamSynchronize"]


def test_what_the_first_run_allocates_is_not_captured(session: TensorRtSession, cuda_runtime: Any) -> None:
    session.new_slot()
    before = cuda_runtime.calls[: cuda_runtime.calls.index("cudaStreamBeginCapture")]
    assert before[-3:] == ["cudaMemcpyAsync", "cudaMemcpyAsync", "cudaStreamSynchronize"]


@pytest.mark.parametrize("step", ["cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_work_that_cannot_be_recorded_is_begun_anew_each_time(
    session: TensorRtSession, cuda_runtime: Any, step: str
) -> None:
    cuda_runtime.failing.add(step)
    slot = session.new_slot()
    slot.inputs["images"][:] = 3
    cuda_runtime.calls.clear()
    slot.run()
    assert (slot.outputs["doubled"] == 6).all()
    assert "cudaGraphLaunch" not in cuda_runtime.calls


def test_slots_are_apart_and_give_everything_back(session: TensorRtSession, cuda_runtime: Any) -> None:
    first, second = session.new_slot(), session.new_slot()
    first.inputs["images"][:] = 1
    second.inputs["images"][:] = 2
    first.run()
    second.run()
    assert (first.outputs["doubled"] == 2).all()
    kept = second.outputs["doubled"]
    del first, second
    gc.collect()
    assert (kept == 4).all()  # a view keeps its pinned memory
    assert len(cuda_runtime.memory) == 1
    del kept
    gc.collect()
    assert cuda_runtime.memory == {}


def test_each_thread_makes_the_device_current_once(session: TensorRtSession, cuda_runtime: Any) -> None:
    slot = session.new_slot()
    cuda_runtime.calls.clear()
    thread = threading.Thread(target=lambda: (slot.run(), slot.run()))
    thread.start()
    thread.join()
    assert cuda_runtime.calls.count("cudaSetDevice") == 1


def test_a_failing_run_says_so_and_the_slot_stays_usable(session: TensorRtSession, cuda_runtime: Any) -> None:
    cuda_runtime.failing.add("cudaGraphInstantiate")
    slot = session.new_slot()
    cuda_runtime.failing.add("execute_async_v3")
    with pytest.raises(BackendError, match="TensorRT failed while running"):
        slot.run()
    cuda_runtime.failing.clear()
    slot.inputs["images"][:] = 4
    slot.run()
    assert (slot.outputs["doubled"] == 8).all()


def test_no_device_memory(session: TensorRtSession, cuda_runtime: Any) -> None:
    cuda_runtime.failing.add("cudaMalloc")
    with pytest.raises(BackendError, match="cudaMalloc failed: out of memory"):
        session.new_slot()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"builder_version": "8.6.1"}, r"built by tensorrt 8\.6\.1, and here is tensorrt 10\.3\.0"),
        ({"builder": "tensorrt_rtx"}, "built by tensorrt_rtx"),
        ({"compute_capability": "7.2"}, r"compute capability 7\.2, and this GPU has 8\.6"),
        ({"compute_capability": "8.0,8.9"}, r"compute capability 8\.0,8\.9, and this GPU has 8\.6"),
        (
            {"builder_version": "10.7.0", "flags": ["VERSION_COMPATIBLE"]},
            r"built by tensorrt 10\.7\.0 to run on >=10\.7\.0 <12, and here is tensorrt 10\.3\.0",
        ),
    ],
)
def test_an_engine_of_another_version_or_gpu(
    cuda_runtime: Any,
    tensorrt_module: Any,
    engine_path: Path,
    write_sidecar: WriteSidecar,
    change: dict[str, Any],
    message: str,
) -> None:
    write_sidecar(**change)
    with pytest.raises(ModelError, match=message) as caught:
        TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)
    assert "eightfold build MODEL.onnx --target tensorrt -o model.engine" in str(caught.value)


@pytest.mark.parametrize("content", [b'{"builder": "tens', b"\xff\xfe", b"[]"])
def test_a_sidecar_that_is_none(cuda_runtime: Any, tensorrt_module: Any, engine_path: Path, content: bytes) -> None:
    Path(f"{engine_path}.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.engine\.json is not the record that eightfold build writes"):
        TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)


def test_a_sidecar_of_another_engine(
    cuda_runtime: Any, tensorrt_module: Any, engine_path: Path, write_sidecar: WriteSidecar
) -> None:
    write_sidecar(engine_sha256=sha256_of_file(engine_path))
    TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)
    write_sidecar(engine_sha256="0" * 64)
    with pytest.raises(ModelError, match=r"model\.engine\.json is the record of another engine; .* build it again"):
        TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"builder_version": "10.3.0.26"},
        {"compute_capability": "8.0,8.6"},
        {"compute_capability": "9.0", "flags": ["FP16", "AMPERE_PLUS"]},
        {"compute_capability": ""},
        {"flags": 5},
    ],
)
def test_an_engine_that_fits_its_sidecar(
    cuda_runtime: Any, tensorrt_module: Any, engine_path: Path, write_sidecar: WriteSidecar, change: dict[str, Any]
) -> None:
    write_sidecar(**change)
    TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)


def test_host_code_in_an_engine_is_loaded_only_where_that_is_allowed(
    cuda_runtime: Any,
    tensorrt_module: Any,
    engine_path: Path,
    write_sidecar: WriteSidecar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine_path.write_bytes(b"host code")
    write_sidecar(builder_version="8.6.1", flags=["VERSION_COMPATIBLE"])
    monkeypatch.delenv("EIGHTFOLD_TRUST_ENGINE_CODE", raising=False)
    with pytest.raises(ModelError, match=r"brings machine code along .* set EIGHTFOLD_TRUST_ENGINE_CODE=1"):
        TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)
    monkeypatch.setenv("EIGHTFOLD_TRUST_ENGINE_CODE", "1")
    TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)
    write_sidecar()  # one that hides what it holds is not believed
    with pytest.raises(ModelError, match="cannot load it"):
        TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)


def test_a_version_before_tensors_had_names(
    tensorrt_module: Any, engine_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt_module.__version__ = "8.4.1.5"
    monkeypatch.setattr("eightfold.runtime.backends.tensorrt.require", lambda *_: tensorrt_module)
    with pytest.raises(BackendError, match=r"TensorRT 8\.4\.1\.5 does not .*; allowed: 8\.5 .*; run .* eightfold-run"):
        BACKENDS["tensorrt"].open(engine_path, SessionOptions())


def test_an_engine_without_weights_is_not_run(
    cuda_runtime: Any, tensorrt_module: Any, engine_path: Path, write_sidecar: WriteSidecar
) -> None:
    write_sidecar(flags=["STRIP_PLAN"])
    with pytest.raises(ModelError, match=r"without its weights; .* eightfold refit model\.engine MODEL\.onnx"):
        TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)


def test_an_engine_that_tensorrt_refuses(cuda_runtime: Any, tensorrt_module: Any, engine_path: Path) -> None:
    engine_path.write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"tensorrt 10\.3\.0 cannot load it; .*eightfold build"):
        TensorRtSession("tensorrt", tensorrt_module, CudaPython(0, cuda_runtime), engine_path)


def test_without_a_driver_the_backends_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.backends.cuda_memory.DRIVER_FILES", ())
    monkeypatch.setattr("eightfold.runtime.backends.tensorrt.installed", lambda module: module == "tensorrt_rtx")
    assert BACKENDS["tensorrt-rtx"].absent() == "this machine has no NVIDIA driver"
    assert "pip install 'eightfold[tensorrt]'" in (BACKENDS["tensorrt"].absent() or "")
    assert "tensorrt-rtx" not in usable_backends()
