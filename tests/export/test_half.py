from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eightfold.errors import VerificationError
from eightfold.export.half import half_graph, half_onnx, nodes_out_of_range
from eightfold.export.half_emulation import emulated_half
from eightfold.export.onnx_export import export_onnx
from eightfold.export.verify import Tolerance, random_inputs, run_onnx, verify_onnx
from tests.export.networks import graph, saved, small_net


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    return found | {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}


def test_weights_are_half_and_the_edges_stay_float(tmp_path: Path) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    half = half_onnx(file, tmp_path / "half.onnx")
    model = onnx.load(half)
    onnx.checker.check_model(model)
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {
        TensorProto.FLOAT
    }
    types = _types(model)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    assert {types[name] for name in (*convolution.input, *convolution.output)} == {TensorProto.FLOAT16}
    step = verify_onnx(file, half, random_inputs(file), step="half", tolerance=Tolerance(cosine=0.9999))
    assert step.max_abs_error
    assert half.stat().st_size < file.stat().st_size


@pytest.mark.parametrize(("op", "attributes"), [("Exp", {}), ("Log", {}), ("LpNormalization", {"axis": 1})])
def test_operators_that_need_range_stay_float(op: str, attributes: dict[str, Any]) -> None:
    nodes = [helper.make_node("Relu", ["images"], ["a"]), helper.make_node(op, ["a"], ["b"], **attributes)]
    model = half_graph(graph([*nodes, helper.make_node("Relu", ["b"], ["out"])], {"images": [2, 3]}, {"out": [2, 3]}))
    types = _types(model)
    node = next(node for node in model.graph.node if node.op_type == op)
    assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT


@pytest.mark.parametrize("value", [1e5, -1e9, 1e-12])
def test_constants_that_half_cannot_hold_stay_float(value: float) -> None:
    nodes = [helper.make_node("Add", ["images", "c"], ["a"]), helper.make_node("Relu", ["a"], ["out"])]
    weights = {"c": np.array([value], np.float32)}
    model = half_graph(graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, weights))
    (kept,) = model.graph.initializer
    assert numpy_helper.to_array(kept).item() == np.float32(value)


def test_named_nodes_stay_float() -> None:
    nodes = [helper.make_node("Relu", ["images"], ["a"], name="first"), helper.make_node("Neg", ["a"], ["out"])]
    model = half_graph(graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}), keep_float=["first"])
    assert _types(model)["a"] == TensorProto.FLOAT


def test_an_output_that_is_also_read_inside_keeps_its_type_outside(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["images"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    file = saved(graph(nodes, {"images": [2, 3]}, {"a": [2, 3], "b": [2, 3]}), tmp_path / "x.onnx")
    half = half_onnx(file, tmp_path / "half.onnx")
    verify_onnx(file, half, random_inputs(file), step="half", tolerance=Tolerance(max_rel_error=1e-3))


def test_resize_keeps_its_scales_float(tmp_path: Path) -> None:
    nodes = [helper.make_node("Resize", ["images", "", "scales"], ["out"], mode="linear")]
    weights = {"scales": np.array([1, 1, 2, 2], np.float32)}
    model = graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [1, 3, 8, 8]}, weights)
    file = saved(model, tmp_path / "x.onnx")
    half = half_onnx(file, tmp_path / "half.onnx")
    verify_onnx(file, half, random_inputs(file), step="half", tolerance=Tolerance(max_rel_error=1e-3))


def _amplified(path: Path, gain: float) -> Path:
    nodes = [
        helper.make_node("Mul", ["images", "gain"], ["large"], name="amplify"),
        helper.make_node("Add", ["large", "images"], ["sum"], name="add"),
        helper.make_node("Div", ["sum", "gain"], ["small"], name="attenuate"),
        helper.make_node("Sqrt", ["small"], ["out"], name="root"),
    ]
    return saved(graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, {"gain": np.array([gain], np.float32)}), path)


def test_what_overflows_on_real_inputs_stays_float(tmp_path: Path) -> None:
    file = _amplified(tmp_path / "x.onnx", 6e4)
    inputs = {"images": np.full((2, 3), 3.0, np.float32)}
    assert nodes_out_of_range(onnx.load(file), inputs) == ["amplify", "add", "attenuate"]
    half = half_onnx(file, tmp_path / "half.onnx", inputs=inputs)
    assert _types(onnx.load(half))["sum"] == TensorProto.FLOAT
    assert np.isfinite(run_onnx(half, inputs)["out"]).all()


def test_overflow_shows_in_the_emulation_and_not_in_onnxruntime(tmp_path: Path) -> None:
    file = _amplified(tmp_path / "x.onnx", 6e4)
    inputs = {"images": np.full((2, 3), 3.0, np.float32)}
    blind = half_onnx(file, tmp_path / "blind.onnx")
    assert np.isfinite(run_onnx(blind, inputs)["out"]).all()
    assert not np.isfinite(run_onnx(emulated_half(onnx.load(blind)).SerializeToString(), inputs)["out"]).any()


@pytest.mark.parametrize("offset", [1.0, 33.3, 4096.0])
def test_the_emulation_rounds_as_numpy_does(offset: float) -> None:
    nodes = [
        helper.make_node("Add", ["images", "offset"], ["far"]),
        helper.make_node("Sub", ["far", "offset"], ["out"]),
    ]
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, {"offset": np.array([offset], np.float32)})
    rows = np.random.default_rng(0).random((2, 3), dtype=np.float32)
    seen = run_onnx(emulated_half(half_graph(model)).SerializeToString(), {"images": rows})["out"]
    half = np.float16(offset)
    np.testing.assert_array_equal(seen, ((rows.astype(np.float16) + half) - half).astype(np.float32))


def test_a_graph_too_fine_for_float16_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["images", "offset"], ["far"], name="far"),
        helper.make_node("Sub", ["far", "offset"], ["out"], name="near"),
    ]
    weights = {"offset": np.array([4096], np.float32)}
    file = saved(graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, weights), tmp_path / "x.onnx")
    inputs = {"images": np.random.default_rng(0).random((2, 3), dtype=np.float32)}
    with pytest.raises(VerificationError, match=r"float16 changed output 'out': cosine .* first diverging tensor"):
        half_onnx(file, tmp_path / "half.onnx", inputs=inputs)
    assert not (tmp_path / "half.onnx").exists()
    assert half_onnx(file, tmp_path / "half.onnx", inputs=inputs, keep_float=["far", "near"]).exists()
