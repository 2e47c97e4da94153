"""The oracle of every pass is the graph before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from tests.export.networks import graph
from tests.export.simplify.passes.oracle import operators_after

RNG = np.random.default_rng(0)
Weights = dict[str, NDArray[np.generic]]


def _normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def _pad_then_conv(pads: Sequence[int], value: float, mode: str = "constant") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Pad", ["images", "pads", "value"], ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "w"], ["out"], pads=[1, 0, 0, 1]),
    ]
    weights: Weights = {"w": _normal(4, 3, 3, 3), "pads": np.array(pads), "value": np.array(value, np.float32)}
    height, width = 8 + pads[2] + pads[6] - 1, 8 + pads[3] + pads[7] - 1
    return graph(nodes, {"images": [1, 3, 8, 8]}, {"out": [1, 4, height, width]}, weights)


def test_padding_goes_into_the_convolution() -> None:
    model = _pad_then_conv([0, 0, 1, 2, 0, 0, 3, 0], 0.0)
    assert operators_after(model, (1, 3, 8, 8)) == ["Conv"]
    assert list(helper.get_node_attr_value(model.graph.node[0], "pads")) == [2, 2, 3, 1]


@pytest.mark.parametrize(("value", "mode"), [(1.0, "constant"), (0.0, "reflect"), (0.0, "edge")])
def test_other_padding_stays(value: float, mode: str) -> None:
    assert operators_after(_pad_then_conv([0, 0, 1, 1, 0, 0, 1, 1], value, mode), (1, 3, 8, 8)) == ["Pad", "Conv"]


def test_padding_that_others_read_stays() -> None:
    model = _pad_then_conv([0, 0, 1, 1, 0, 0, 1, 1], 0.0)
    model.graph.output.append(helper.make_tensor_value_info("padded", 1, [1, 3, 10, 10]))
    assert operators_after(model, (1, 3, 8, 8)) == ["Pad", "Conv"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_batch_norm_goes_into_the_convolution(op: str, bias: bool) -> None:
    conv = helper.make_node(op, ["images", "w", *(["b"] if bias else [])], ["c"], kernel_shape=[1, 1])
    norm = helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["out"], epsilon=1e-3)
    weight = _normal(5, 3, 1, 1) if op == "Conv" else _normal(3, 5, 1, 1)
    weights: Weights = {"w": weight, "scale": _normal(5), "shift": _normal(5), "mean": _normal(5)}
    weights["var"] = RNG.random(5, dtype=np.float32) + 0.1
    if bias:
        weights["b"] = _normal(5)
    model = graph([conv, norm], {"images": [2, 3, 4, 4]}, {"out": [2, 5, 4, 4]}, weights)
    assert operators_after(model, (2, 3, 4, 4)) == [op]


def test_a_convolution_that_others_read_keeps_its_weights() -> None:
    conv = helper.make_node("Conv", ["images", "w"], ["c"])
    norm = helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["out"])
    weights: Weights = {name: np.ones(5, np.float32) for name in ("scale", "shift", "mean", "var")}
    weights["w"] = _normal(5, 3, 1, 1)
    model = graph([conv, norm], {"images": [1, 3, 4, 4]}, {"c": [1, 5, 4, 4], "out": [1, 5, 4, 4]}, weights)
    assert operators_after(model, (1, 3, 4, 4)) == ["Conv", "BatchNormalization"]


def test_a_computed_reshape_target_becomes_a_constant() -> None:
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["images", "target"], ["out"]),
    ]
    weights: Weights = {"zero": np.array([0]), "rest": np.array([-1])}
    model = graph(nodes, {"images": [2, 3, 4]}, {"out": [2, 12]}, weights)
    assert operators_after(model, (2, 3, 4)) == ["Reshape"]


def test_what_has_no_effect_goes() -> None:
    nodes = [
        helper.make_node("Identity", ["images"], ["a"]),
        helper.make_node("Reshape", ["a", "same"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Dropout", ["d"], ["e"]),
        helper.make_node("Neg", ["e"], ["out"]),
    ]
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, {"same": np.array([2, 3])})
    assert operators_after(model, (2, 3)) == ["Relu", "Neg"]


def test_an_identity_that_is_an_output_stays() -> None:
    nodes = [helper.make_node("Relu", ["images"], ["a"]), helper.make_node("Identity", ["a"], ["out"])]
    assert operators_after(graph(nodes, {"images": [2]}, {"out": [2]}), (2,)) == ["Relu", "Identity"]


def _requantized(second_scale: float) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "s2", "z"], ["q2"]),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z"], ["out"]),
    ]
    scales = {"s": np.array(0.02, np.float32), "s2": np.array(second_scale, np.float32)}
    return graph(nodes, {"images": [8]}, {"out": [8]}, {**scales, "z": np.array(0, np.int8)})


def test_quantizing_again_the_same_way_goes() -> None:
    assert operators_after(_requantized(0.02), (8,)) == ["QuantizeLinear", "DequantizeLinear"]


def test_quantizing_again_in_another_way_stays() -> None:
    assert len(operators_after(_requantized(0.03), (8,))) == 4


def test_equal_weights_and_equal_nodes_are_merged() -> None:
    nodes = [
        helper.make_node("Mul", ["images", "w"], ["a"]),
        helper.make_node("Mul", ["images", "twin"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["out"]),
    ]
    weight = _normal(3)
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, {"w": weight, "twin": weight.copy()})
    assert operators_after(model, (2, 3)) == ["Mul", "Add"]
    assert len(model.graph.initializer) == 1


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_between_reshapes_becomes_a_product(bias: bool, transposed: int) -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["a"]),
        helper.make_node("Gemm", ["a", "w", *(["b"] if bias else [])], ["g"], transB=transposed),
        helper.make_node("Reshape", ["g", "back"], ["out"]),
    ]
    weights: Weights = {"flat": np.array([6, 4]), "back": np.array([2, 3, 5]), "b": _normal(5)}
    weights["w"] = _normal(5, 4) if transposed else _normal(4, 5)
    if not bias:
        del weights["b"]
    model = graph(nodes, {"images": [2, 3, 4]}, {"out": [2, 3, 5]}, weights)
    assert operators_after(model, (2, 3, 4)) == (["MatMul", "Add"] if bias else ["MatMul"])


def test_a_gemm_that_mixes_axes_stays() -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["a"]),
        helper.make_node("Gemm", ["a", "w"], ["g"]),
        helper.make_node("Reshape", ["g", "back"], ["out"]),
    ]
    weights: Weights = {"flat": np.array([3, 8]), "back": np.array([2, 3, 4]), "w": _normal(8, 8)}
    assert "Gemm" in operators_after(graph(nodes, {"images": [2, 3, 4]}, {"out": [2, 3, 4]}, weights), (2, 3, 4))


@pytest.mark.parametrize(
    ("op", "value", "side", "goes"),
    [("Add", 0, 0, True), ("Mul", 1, 1, True), ("Sub", 0, 1, True), ("Sub", 0, 0, False), ("Add", 1e-30, 0, False)],
)
def test_neutral_constants_go(op: str, value: float, side: int, goes: bool) -> None:
    inputs = ["a", "a"]
    inputs[side] = "c"
    nodes = [helper.make_node("Relu", ["images"], ["a"]), helper.make_node(op, inputs, ["b"])]
    nodes.append(helper.make_node("Tanh", ["b"], ["out"]))
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, {"c": np.full(3, value, np.float32)})
    assert (op in operators_after(model, (2, 3))) != goes


def test_a_neutral_constant_that_broadcasts_stays() -> None:
    nodes = [helper.make_node("Relu", ["images"], ["a"]), helper.make_node("Add", ["a", "c"], ["b"])]
    nodes.append(helper.make_node("Tanh", ["b"], ["out"]))
    model = graph(nodes, {"images": [1, 3]}, {"out": [4, 3]}, {"c": np.zeros((4, 3), np.float32)})
    assert "Add" in operators_after(model, (1, 3))


@pytest.mark.parametrize("bias", ["none", "zero", "some"])
def test_reshapes_around_work_on_rows_go(bias: str) -> None:
    """An MLP with GELU, whose first product is read twice, as simplifiers leave it."""
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["a"]),
        helper.make_node("Gemm", ["a", "w", *(["b"] if bias != "none" else [])], ["g"]),
        helper.make_node("Erf", ["g"], ["e"]),
        helper.make_node("Mul", ["g", "e"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["h"]),
        helper.make_node("Gemm", ["h", "v"], ["p"]),
        helper.make_node("Reshape", ["p", "back"], ["q"]),
        helper.make_node("Add", ["q", "images"], ["out"]),
    ]
    weights: Weights = {"flat": np.array([6, 4]), "back": np.array([2, 3, 4]), "half": np.array(0.5, np.float32)}
    weights |= {"w": _normal(4, 5), "v": _normal(5, 4)}
    if bias != "none":
        weights["b"] = _normal(5) * (bias == "some")
    model = graph(nodes, {"images": [2, 3, 4]}, {"out": [2, 3, 4]}, weights)
    added = ["Add"] if bias == "some" else []
    assert operators_after(model, (2, 3, 4)) == ["MatMul", *added, "Erf", "Mul", "Mul", "MatMul", "Add"]


def test_reshapes_around_a_mix_of_rows_stay() -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["a"]),
        helper.make_node("Softmax", ["a"], ["s"], axis=0),
        helper.make_node("Gemm", ["s", "w"], ["g"]),
        helper.make_node("Reshape", ["g", "back"], ["out"]),
    ]
    weights: Weights = {"flat": np.array([6, 4]), "back": np.array([2, 3, 4]), "w": _normal(4, 4)}
    left = operators_after(graph(nodes, {"images": [2, 3, 4]}, {"out": [2, 3, 4]}, weights), (2, 3, 4))
    assert left == ["Reshape", "Softmax", "Gemm", "Reshape"]


def test_nodes_that_nothing_reads_go() -> None:
    nodes = [helper.make_node("Neg", ["images"], ["unread"]), helper.make_node("Relu", ["images"], ["out"])]
    model = graph(nodes, {"images": [2]}, {"out": [2]}, {"unused": _normal(3)})
    assert operators_after(model, (2,)) == ["Relu"]
    assert not model.graph.initializer


def test_slices_pads_and_concats_without_effect_go() -> None:
    nodes = [
        helper.make_node("Slice", ["images", "zero", "large", "axis", "one"], ["a"]),
        helper.make_node("Pad", ["a", "none"], ["b"]),
        helper.make_node("Concat", ["b"], ["c"], axis=0),
        helper.make_node("Slice", ["c", "last", "before", "axis", "back"], ["out"]),
    ]
    numbers = {"zero": 0, "large": 99, "axis": 1, "one": 1, "last": -1, "before": -99, "back": -1}
    weights: Weights = {name: np.array([number]) for name, number in numbers.items()}
    weights["none"] = np.zeros(4, np.int64)
    model = graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, weights)
    assert operators_after(model, (2, 3)) == ["Slice"]
    assert model.graph.node[0].input[1] == "last"


def test_of_reshapes_in_a_row_the_last_one_stays() -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "six"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["b", "front"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"], axis=2),
        helper.make_node("Neg", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["out"], axis=0),
    ]
    weights: Weights = {"six": np.array([1, 6, 0]), "front": np.array([0])}
    model = graph(nodes, {"images": [2, 3, 4]}, {"out": [1, 24]}, weights)
    assert operators_after(model, (2, 3, 4)) == ["Reshape", "Neg", "Flatten"]


def test_reshapes_around_a_transpose_that_moves_stay() -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["b", "row"], ["out"]),
    ]
    weights: Weights = {"shape": np.array([1, 6, 4]), "row": np.array([24])}
    model = graph(nodes, {"images": [2, 3, 4]}, {"out": [24]}, weights)
    assert operators_after(model, (2, 3, 4)) == ["Reshape", "Transpose", "Reshape"]


def test_a_reshape_that_others_read_stays() -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "six"], ["a"]),
        helper.make_node("Neg", ["a"], ["out"]),
        helper.make_node("Reshape", ["a", "row"], ["b"]),
        helper.make_node("Abs", ["b"], ["other"]),
    ]
    weights: Weights = {"six": np.array([6, 4]), "row": np.array([24])}
    model = graph(nodes, {"images": [2, 3, 4]}, {"out": [6, 4], "other": [24]}, weights)
    assert sorted(operators_after(model, (2, 3, 4))) == ["Abs", "Neg", "Reshape", "Reshape"]
