from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.step_checks import verify_module, verify_onnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import helper

from eightfold.errors import ModelError, VerificationError
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import Tolerance, compare_arrays, difference
from tests.export.networks import graph, images, random_inputs, saved, small_net

FINITE = st.floats(-100, 100, width=32)


@given(arrays(np.float32, (3, 4), elements=FINITE))
def test_an_array_equals_itself(array: NDArray[np.float32]) -> None:
    seen = difference("x", array, array.copy())
    assert (seen.max_abs_error, seen.max_rel_error, seen.cosine) == (0.0, 0.0, 1.0)


@given(arrays(np.float32, (12,), elements=FINITE), st.integers(0, 11), st.floats(1, 50))
def test_the_largest_difference_is_found(array: NDArray[np.float32], place: int, by: float) -> None:
    other = array.astype(np.float64)
    other[place] += by
    seen = difference("x", array, other)
    assert seen.max_abs_error == pytest.approx(by)
    scale = float(np.abs(array).max())
    assert seen.max_rel_error == (pytest.approx(by / scale) if scale else float("inf"))


def test_nan_is_never_within_tolerance() -> None:
    seen = difference("x", np.ones(3), np.array([1.0, np.nan, 1.0]))
    assert seen.beyond(Tolerance(max_abs_error=1e9))
    assert seen.beyond(Tolerance(cosine=0.0))


def test_shapes_must_agree() -> None:
    with pytest.raises(VerificationError, match=r"tensor 'x' has shape \(2,\); allowed: \(3,\)"):
        difference("x", np.ones(3), np.ones(2))


def test_the_number_of_outputs_must_agree() -> None:
    with pytest.raises(VerificationError, match="2 outputs; allowed: 1"):
        compare_arrays({"a": np.ones(1)}, {"a": np.ones(1), "b": np.ones(1)})


def _saved_chain(path: Path, scale: float) -> Path:
    nodes = [
        helper.make_node("Relu", ["images"], ["rectified"]),
        helper.make_node("Mul", ["rectified", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "rectified"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["out"]),
    ]
    weights = {"scale": np.array([scale], np.float32)}
    return saved(graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, weights), path)


def test_the_first_diverging_tensor_is_named(tmp_path: Path) -> None:
    before, after = _saved_chain(tmp_path / "a.onnx", 0.5), _saved_chain(tmp_path / "b.onnx", 0.7)
    with pytest.raises(VerificationError, match=r"half changed output 'out': .* first diverging tensor: 'scaled'"):
        verify_onnx(before, after, random_inputs(before), step="half", tolerance=Tolerance(max_rel_error=1e-3))


def test_figures_are_recorded_where_they_are_within(tmp_path: Path) -> None:
    before, after = _saved_chain(tmp_path / "a.onnx", 0.5), _saved_chain(tmp_path / "b.onnx", 0.5001)
    step = verify_onnx(before, after, random_inputs(before), step="nudge", tolerance=Tolerance(cosine=0.99))
    assert step.name == "nudge"
    assert step.max_abs_error is not None
    assert 0 < step.max_abs_error < 1e-3


def test_a_module_that_was_changed_after_export_is_found(tmp_path: Path) -> None:
    net = small_net()
    file = export_onnx(net, tmp_path / "net.onnx", batch=1, image_size=16)
    net.head.bias.data += 1
    with pytest.raises(VerificationError, match="export changed output 'logits'"):
        verify_module(net, file, images(), tolerance=Tolerance(max_rel_error=1e-4))


def test_a_graph_onnxruntime_refuses_is_a_model_error(tmp_path: Path) -> None:
    model = graph([helper.make_node("NoSuchOp", ["images"], ["out"])], {"images": [1]}, {"out": [1]})
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"onnxruntime refuses .*bad\.onnx"):
        verify_onnx(path, path, random_inputs(path), step="x", tolerance=Tolerance())
