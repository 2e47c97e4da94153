from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from benchmarks.step_checks import verify_onnx
from onnx import TensorProto, helper, numpy_helper

from eightfold.errors import ModelError, UsageError, VerificationError
from eightfold.export.fp16.fp16 import checked_fp16, half_onnx
from eightfold.export.fp16.fp16_emulation import emulated_fp16, verify_fp16
from eightfold.export.fp16.fp16_graph import HalfType, fits, fp16_graph, rounded_to_half, scales_fit
from eightfold.export.fp16.fp16_range import nodes_not_finite, nodes_out_of_range
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.test_inputs import runs_of
from eightfold.export.verify.verify import Tolerance, run_onnx
from eightfold.onnx_graph.onnx_files import input_specs
from tests.export.networks import graph, random_inputs, saved, small_net

TRIALS = ["on 4 images", "on zeros", "on ones", "on extremes", "on noise"]


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
    model = fp16_graph(graph([*nodes, helper.make_node("Relu", ["b"], ["out"])], {"images": [2, 3]}, {"out": [2, 3]}))
    types = _types(model)
    node = next(node for node in model.graph.node if node.op_type == op)
    assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT


@pytest.mark.parametrize("value", [1e5, -1e9, 1e-12])
def test_constants_that_half_cannot_hold_stay_float(value: float) -> None:
    nodes = [helper.make_node("Add", ["images", "c"], ["a"]), helper.make_node("Relu", ["a"], ["out"])]
    weights = {"c": np.array([value], np.float32)}
    model = fp16_graph(graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, weights))
    (kept,) = model.graph.initializer
    assert numpy_helper.to_array(kept).item() == np.float32(value)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_graph_that_is_half_already_is_refused(kind: HalfType, tmp_path: Path) -> None:
    path = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    onnx.save(fp16_graph(onnx.load(path), kind=kind), tmp_path / "half.onnx")
    with pytest.raises(
        ModelError, match=r"half\.onnx has 16-bit weights already, .*; give the graph that it was made from"
    ):
        checked_fp16(tmp_path / "half.onnx")


def test_named_nodes_stay_float() -> None:
    nodes = [helper.make_node("Relu", ["images"], ["a"], name="first"), helper.make_node("Neg", ["a"], ["out"])]
    model = fp16_graph(graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}), keep_float=["first"])
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
    assert nodes_out_of_range(onnx.load(file), [inputs]) == ["amplify", "add", "attenuate"]
    half = half_onnx(file, tmp_path / "half.onnx", inputs=inputs)
    assert _types(onnx.load(half))["sum"] == TensorProto.FLOAT
    assert np.isfinite(run_onnx(half, inputs)["out"]).all()


def test_overflow_shows_in_the_emulation_and_not_in_onnxruntime(tmp_path: Path) -> None:
    file = _amplified(tmp_path / "x.onnx", 6e4)
    inputs = {"images": np.full((2, 3), 3.0, np.float32)}
    blind = half_onnx(file, tmp_path / "blind.onnx")
    assert np.isfinite(run_onnx(blind, inputs)["out"]).all()
    assert not np.isfinite(run_onnx(emulated_fp16(onnx.load(blind)), inputs)["out"]).any()


@pytest.mark.parametrize("offset", [1.0, 33.3, 4096.0])
def test_the_emulation_rounds_as_numpy_does(offset: float) -> None:
    nodes = [
        helper.make_node("Add", ["images", "offset"], ["far"]),
        helper.make_node("Sub", ["far", "offset"], ["out"]),
    ]
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, {"offset": np.array([offset], np.float32)})
    rows = np.random.default_rng(0).random((2, 3), dtype=np.float32)
    seen = run_onnx(emulated_fp16(fp16_graph(model)).SerializeToString(), {"images": rows})["out"]
    half = np.float16(offset)
    np.testing.assert_array_equal(seen, ((rows.astype(np.float16) + half) - half).astype(np.float32))


def _fine_in_the_middle(path: Path) -> Path:
    """A long chain of which two nodes need more digits than float16 has."""
    before = [helper.make_node("Tanh", [f"t{i}"], [f"t{i + 1}"], name=f"before{i}") for i in range(20)]
    before[0].input[0] = "images"
    nodes = [
        helper.make_node("Add", ["t20", "offset"], ["far"], name="far"),
        helper.make_node("Sub", ["far", "offset"], ["u0"], name="near"),
    ]
    after = [helper.make_node("Neg", [f"u{i}"], [f"u{i + 1}"], name=f"after{i}") for i in range(20)]
    after[-1].output[0] = "out"
    weights = {"offset": np.array([4096], np.float32)}
    return saved(graph([*before, *nodes, *after], {"images": [2, 3]}, {"out": [2, 3]}, weights), path)


def test_nodes_that_need_more_digits_are_found_and_stay_float(tmp_path: Path) -> None:
    file = _fine_in_the_middle(tmp_path / "x.onnx")
    rows = np.random.default_rng(0).random((4, 3), dtype=np.float32)
    model, (step,), _ = checked_fp16(file, inputs={"images": rows})
    note, *input_sets = step.notes
    assert [words.partition(":")[0] for words in input_sets] == TRIALS
    kept = note.partition(" nodes: ")[2].split(", ")
    assert note.startswith("kept in float32 for their precision, ")
    assert {"far", "near"} <= set(kept)
    assert len(kept) < 12
    assert step.cosine is not None
    assert step.cosine >= 0.9999
    assert _types(model)["far"] == TensorProto.FLOAT
    blind = fp16_graph(onnx.load(file))
    lost = verify_fp16(onnx.load(file), blind, {"2 images": [{"images": rows[:2]}]}, tolerance=Tolerance()).cosine
    assert lost is not None
    assert lost < 0.9999


def test_beyond_the_tolerance_the_first_tensor_is_named(tmp_path: Path) -> None:
    file = _fine_in_the_middle(tmp_path / "x.onnx")
    rows = np.random.default_rng(0).random((2, 3), dtype=np.float32)
    with pytest.raises(
        VerificationError, match=r"float16 \(on 2 images\) changed output 'out': cosine .* first diverging tensor: 'u0'"
    ):
        verify_fp16(
            onnx.load(file),
            fp16_graph(onnx.load(file)),
            {"2 images": [{"images": rows}]},
            tolerance=Tolerance(cosine=0.9999),
        )


def test_rows_beyond_the_batch_are_run_in_turn(tmp_path: Path) -> None:
    model = onnx.load(_fine_in_the_middle(tmp_path / "x.onnx"))
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    first, second = runs_of(input_specs(model), {"images": rows})
    np.testing.assert_array_equal(np.concatenate([first["images"], second["images"]]), rows[:4])
    with pytest.raises(UsageError, match=r"images with 1 rows; allowed: images with 2 or more"):
        runs_of(input_specs(model), {"images": rows[:1]})


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1e-3, 2.0, -3.0], "float16", True),
        ([1e-7, 2e-7], "float16", False),  # subnormal: two or three bits are left
        ([1e-7, 2.0], "float16", True),  # the small one counts for nothing beside the other
        ([7e4, 1.0], "float16", False),
        ([7e4, 1e-30], "bfloat16", True),
    ],
)
def test_what_a_type_can_hold(values: list[float], kind: HalfType, expected: bool) -> None:
    assert fits(np.array(values, np.float32), kind) == expected


def test_bfloat16_rounds_as_torch_does() -> None:
    array = np.random.default_rng(0).standard_normal(1000).astype(np.float32) * np.float32(1e5)
    array[:3] = [np.inf, -0.0, 1 + 2**-8]  # the last one is a tie
    np.testing.assert_array_equal(
        rounded_to_half(array, "bfloat16"), torch.from_numpy(array).bfloat16().float().numpy()
    )


def test_a_bfloat16_graph_answers_on_openvino_as_the_emulation_says(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    rows = random_inputs(file)
    half = half_onnx(file, tmp_path / "half.onnx", kind="bfloat16", inputs=rows)
    onnx.checker.check_model(onnx.load(half), full_check=True)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    seen = openvino.Core().compile_model(str(half), "CPU", settings)(rows)[0]
    expected = run_onnx(emulated_fp16(onnx.load(half), "bfloat16").SerializeToString(), rows)["logits"]
    exact = run_onnx(file, rows)["logits"]
    np.testing.assert_allclose(seen, expected, rtol=0, atol=2**-7 * float(np.abs(exact).max()))
    assert not np.array_equal(expected, exact)


def _quantized(path: Path, weight_scale: float) -> Path:
    """A convolution between Q/DQ pairs as TensorRT takes them, weights as codes."""
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["codes", "weight_scale", "zero"], ["w"]),
        helper.make_node("Conv", ["x", "w", "bias"], ["y"], name="conv", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["y"], ["out"], name="relu"),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "codes": rng.integers(-127, 128, (8, 8, 1, 1), np.int8),
        "scale": np.array(0.01, np.float32),
        "weight_scale": np.array(weight_scale, np.float32),
        "zero": np.array(0, np.int8),
        "bias": rng.standard_normal(8).astype(np.float32),
    }
    return saved(graph(nodes, {"images": [1, 8, 4, 4]}, {"out": [1, 8, 4, 4]}, weights), path)


def test_between_quantized_layers_the_graph_is_half(tmp_path: Path) -> None:
    file = _quantized(tmp_path / "q.onnx", 0.02)
    rows = {"images": np.random.default_rng(1).random((1, 8, 4, 4), dtype=np.float32)}
    half = half_onnx(file, tmp_path / "half.onnx", inputs=rows)
    onnx.checker.check_model(onnx.load(half), full_check=True)
    types = _types(onnx.load(half))
    assert {types[name] for name in ("x", "w", "y")} == {TensorProto.FLOAT16}
    assert {types[name] for name in ("x_q", "codes")} == {TensorProto.INT8}
    (step,) = checked_fp16(file, inputs=rows).steps
    assert step.cosine is not None
    assert step.cosine > 0.9999


def test_a_layer_whose_scales_float16_cannot_hold_stays_float_whole(tmp_path: Path) -> None:
    model = fp16_graph(onnx.load(_quantized(tmp_path / "q.onnx", 1e-8)))
    (convolution,) = (node for node in model.graph.node if node.op_type == "Conv")
    assert {_types(model)[name] for name in (*convolution.input, *convolution.output)} == {TensorProto.FLOAT}


@pytest.mark.parametrize(("least", "expected"), [(0.0, True), (1e-5, True), (2.1e-6, False), (1e-12, False)])
def test_every_scale_has_to_be_held(least: float, expected: bool) -> None:
    """Each is for a channel of its own, which the others do not outweigh."""
    assert scales_fit(np.array([0.02, least], np.float32), "float16") == expected


def test_the_emulation_keeps_the_types_of_the_edges() -> None:
    nodes = [helper.make_node("Mul", ["images", "gain"], ["out"]), helper.make_node("Neg", ["out"], ["negative"])]
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3], "negative": [2, 3]}, {"gain": np.array(3, np.float16)})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    feeds = {"images": np.random.default_rng(0).random((2, 3)).astype(np.float16)}
    found, known = run_onnx(emulated_fp16(model), feeds), feeds["images"] * np.float16(3)
    assert found["out"].dtype == found["negative"].dtype == np.float16
    np.testing.assert_array_equal(found["out"], known)
    np.testing.assert_array_equal(found["negative"], -known)


def test_tensors_whose_names_are_taken_get_others() -> None:
    nodes = [helper.make_node("Relu", ["images"], ["a"]), helper.make_node("Mul", ["a", "images_half"], ["out"])]
    weights = {"images_half": np.array([[2, 3, 4]], np.float32)}
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, weights)
    feeds = {"images": np.ones((2, 3), np.float32)}
    np.testing.assert_array_equal(run_onnx(fp16_graph(model), feeds)["out"], run_onnx(model, feeds)["out"])


def test_what_no_image_makes_overflow_stays_float_for_extremes(tmp_path: Path) -> None:
    """On images in [0, 0.5) products stay below 20,000; what is tried beside them reaches 120,000."""
    nodes = [
        helper.make_node("Mul", ["images", "gain"], ["large"], name="amplify"),
        helper.make_node("Tanh", ["images"], ["bounded"], name="bounded"),
        helper.make_node("Add", ["large", "bounded"], ["out"], name="add"),
    ]
    weights = {"gain": np.array([40_000], np.float32)}
    file = saved(graph(nodes, {"images": [1, 3]}, {"out": [1, 3]}, weights), tmp_path / "x.onnx")
    images = {"images": np.random.default_rng(0).random((1, 3), dtype=np.float32) / 2}
    model, (step,), _ = checked_fp16(file, inputs=images)
    assert step.cosine == pytest.approx(1)
    assert step.notes[0] == "kept in float32 for their range on extremes, 2 of 3 nodes: amplify, add"
    assert _types(model)["bounded"] == TensorProto.FLOAT16
    assert "on extremes: relative error 0, cosine 1.0000" in step.notes


def _direction(path: Path) -> Path:
    """Each pixel over the length of its colour; a black one has none, and a small number keeps it from 0 / 0."""
    nodes = [
        helper.make_node("Mul", ["images", "images"], ["squares"], name="square"),
        helper.make_node("ReduceSum", ["squares", "axes"], ["sums"], name="sum"),
        helper.make_node("Add", ["sums", "least"], ["positive"], name="keep_positive"),
        helper.make_node("Div", ["images", "positive"], ["out"], name="divide"),
    ]
    weights = {"axes": np.array([1]), "least": np.array([1e-9], np.float32)}
    return saved(graph(nodes, {"images": [1, 3]}, {"out": [1, 3]}, weights), path)


def test_a_black_image_gives_no_nan(tmp_path: Path) -> None:
    file = _direction(tmp_path / "x.onnx")
    images = {"images": np.random.default_rng(0).random((2, 3), dtype=np.float32)}
    black = {"images": np.zeros((1, 3), np.float32)}
    blind = emulated_fp16(fp16_graph(onnx.load(file)))
    assert np.isnan(run_onnx(blind, black)["out"]).all()
    assert nodes_not_finite(onnx.load(file), [images_at(images, 0), black], keep_float=()) == ["divide"]
    model, (step,), _ = checked_fp16(file, inputs=images)
    assert step.notes[0] == "kept in float32 for their range on extremes, 1 of 4 nodes: divide"
    assert np.isfinite(run_onnx(emulated_fp16(model), black)["out"]).all()


def images_at(images: dict[str, Any], place: int) -> dict[str, Any]:
    return {name: rows[place : place + 1] for name, rows in images.items()}


def test_without_images_random_values_are_compared(tmp_path: Path) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    (step,) = checked_fp16(file).steps
    assert step.notes[0].startswith("on random values (no images given): relative error 0.00")
    assert len(step.notes) == 1
    nodes = [helper.make_node("Mul", ["images", "far"], ["a"]), helper.make_node("Mul", ["a", "far"], ["out"])]
    weights = {"far": np.array(60000, np.float32)}
    beyond = saved(graph(nodes, {"images": [1, 3]}, {"out": [1, 3]}, weights), tmp_path / "beyond.onnx")
    with pytest.raises(VerificationError, match=r"on random values .* left output 'out' not finite"):
        half_onnx(beyond, tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()


def test_what_is_not_finite_any_more_fails_and_is_named(tmp_path: Path) -> None:
    file = onnx.load(_direction(tmp_path / "x.onnx"))
    input_sets = {
        "1 image": [{"images": np.ones((1, 3), np.float32)}],
        "zeros": [{"images": np.zeros((1, 3), np.float32)}],
    }
    words = r"float16 \(on zeros\) left output 'out' not finite; first tensor that is not: 'out'"
    with pytest.raises(VerificationError, match=words):
        verify_fp16(file, fp16_graph(file), input_sets, tolerance=Tolerance())


def test_what_was_not_finite_before_may_stay_so(tmp_path: Path) -> None:
    file = graph([helper.make_node("Log", ["images"], ["out"])], {"images": [1, 3]}, {"out": [1, 3]})
    input_sets = {
        "1 image": [{"images": np.ones((1, 3), np.float32)}],
        "zeros": [{"images": np.zeros((1, 3), np.float32)}],
    }
    step = verify_fp16(file, fp16_graph(file), input_sets, tolerance=Tolerance())
    assert step.notes[1] == "on zeros: relative error 0, cosine 1.0000"
