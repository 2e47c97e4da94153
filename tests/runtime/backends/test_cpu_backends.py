"""The backends that run on any CPU, through the same tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eightfold.errors import BackendError, MissingExtraError, ModelError, UnknownNameError
from eightfold.runtime.backends import backend_named, open_session, usable_backends
from eightfold.runtime.backends.base import SessionOptions

BOTH = pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])


def save(path: Path, kind: int, shape: list[int | str], operator: str = "Identity") -> Path:
    """One operator from x to y."""
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "one", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@BOTH
def test_specs_and_results(backend: str, bundle_path: Path) -> None:
    session = open_session(bundle_path / "onnx/pruned-b4.onnx", backend, SessionOptions(threads=1))
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [("images", "float32", (4, 3, 8, 8))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.outputs] == [("logits", "float32", (4, 3))]
    assert session.threads == 1
    slot = session.new_slot()
    rows = np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32)
    slot.inputs["images"][:] = rows
    slot.run()
    np.testing.assert_allclose(slot.outputs["logits"], 10 * rows.mean(axis=(2, 3)), rtol=1e-5)
    slot.run_on({"images": 2 * rows})
    np.testing.assert_allclose(slot.outputs["logits"], 20 * rows.mean(axis=(2, 3)), rtol=1e-5)
    slot.inputs["images"][:] = -rows  # the arrays of the caller are not written to
    slot.run()
    np.testing.assert_allclose(slot.outputs["logits"], -10 * rows.mean(axis=(2, 3)), rtol=1e-5)


@BOTH
def test_slots_are_apart(backend: str, bundle_path: Path) -> None:
    session = open_session(bundle_path / "onnx/pruned-b1.onnx", backend)
    first, second = session.new_slot(), session.new_slot()
    first.inputs["images"][:] = 1
    second.inputs["images"][:] = 2
    first.run()
    second.run()
    assert first.outputs["logits"][0, 0] == pytest.approx(10)
    assert second.outputs["logits"][0, 0] == pytest.approx(20)


@BOTH
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, "float32"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.UINT8, "uint8"),
        (TensorProto.INT8, "int8"),
        (TensorProto.INT64, "int64"),
    ],
)
def test_types(backend: str, kind: int, dtype: str, tmp_path: Path) -> None:
    slot = open_session(save(tmp_path / "m.onnx", kind, [2, 3]), backend).new_slot()
    slot.inputs["x"][:] = 7
    slot.run()
    assert slot.outputs["y"].dtype == dtype
    assert (slot.outputs["y"] == 7).all()


@BOTH
def test_a_dynamic_shape_is_refused(backend: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", TensorProto.FLOAT, ["N", 3])
    with pytest.raises(ModelError, match=r"m\.onnx: 'x' has shape .*allowed: fixed sizes; .*eightfold export"):
        open_session(path, backend)


@BOTH
def test_a_type_that_no_runtime_of_eightfold_has(backend: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", TensorProto.DOUBLE, [2])
    with pytest.raises(ModelError, match=r"m\.onnx: 'x' is a .*; allowed: "):
        open_session(path, backend)


@BOTH
def test_a_corrupt_file(backend: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08garbage")
    with pytest.raises(ModelError, match=rf"{backend} cannot load .*m\.onnx"):
        open_session(tmp_path / "m.onnx", backend)


def test_a_provider_that_this_build_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.backends.cuda_memory.DRIVER_FILES", ("/",))
    with pytest.raises(BackendError, match=r"no CUDAExecutionProvider \(pip install onnxruntime-gpu\)"):
        backend_named("onnxruntime-cuda")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")  # onnxruntime's own, where the build lacks it
@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_does_not_start_is_no_silent_run_on_the_cpu(backend: str, bundle_path: Path) -> None:
    from eightfold.runtime.backends import BACKENDS

    if BACKENDS[backend].absent() is None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(
        BackendError, match=r"could not start \w+ExecutionProvider, and would run on CPU.* instead; .*cuDNN"
    ):
        BACKENDS[backend].open(bundle_path / "onnx/pruned-b1.onnx", SessionOptions())


def test_without_a_driver_no_provider_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.backends.cuda_memory.DRIVER_FILES", ())
    with pytest.raises(BackendError, match="this machine has no NVIDIA driver"):
        backend_named("onnxruntime-tensorrt")


def test_an_unknown_backend() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown backend 'onnx'; allowed: .*onnxruntime"):
        backend_named("onnx")


def test_a_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.backends.openvino.installed", lambda module: False)
    assert "openvino" not in usable_backends()
    with pytest.raises(BackendError, match=r"'openvino' cannot be used here: .*pip install 'eightfold\[openvino\]'"):
        backend_named("openvino")


@pytest.mark.parametrize("module", ["onnxruntime", "openvino"])
def test_a_missing_module_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from eightfold.runtime.backends import BACKENDS

    monkeypatch.setattr("eightfold.extras.installed", lambda name: name != module)
    with pytest.raises(MissingExtraError, match=rf"{module} is not installed.*pip install 'eightfold\[\w+\]'"):
        BACKENDS[module].open(tmp_path / "m.onnx", SessionOptions())
