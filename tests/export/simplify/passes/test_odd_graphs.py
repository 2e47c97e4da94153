"""What graphs of others may hold and passes must not trip over; the oracle is the graph before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from eightfold.export.simplify.passes.duplicates import duplicate_nodes
from eightfold.export.simplify.passes.quantize_pairs import quantize_pairs
from eightfold.export.simplify.passes.run import apply_passes
from eightfold.export.verify.verify import run_onnx
from tests.export.networks import graph
from tests.export.simplify.passes.oracle import operators_after

RNG = np.random.default_rng(0)


Weights = dict[str, NDArray[np.generic]]


def _normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("Identity", 1),
        ("Transpose", 1),
        ("Concat", 1),
        ("Dropout", 1),
        ("Flatten", 1),
        ("Reshape", 1),
        ("Expand", 1),
        ("Add", 3),
        ("Pad", 1),
        ("Conv", 1),
        ("MatMul", 1),
        ("Gemm", 1),
        ("BatchNormalization", 1),
        ("QuantizeLinear", 1),
    ],
)
def test_operators_of_others_are_not_what_their_names_say(op: str, inputs: int) -> None:
    nodes = [
        helper.make_node(op, ["images"] * inputs, ["a"], domain="others"),
        helper.make_node(op, ["images"] * inputs, ["b"], domain="others"),
        helper.make_node("Add", ["a", "b"], ["out"]),
    ]
    model = graph(nodes, {"images": [1, 4]}, {"out": [1, 4]})
    model.opset_import.append(helper.make_opsetid("others", 1))
    before = [node.SerializeToString() for node in model.graph.node]
    apply_passes(model)
    assert [node.SerializeToString() for node in model.graph.node] == before


@pytest.mark.parametrize("given", [("", "places"), ("places", "")])
def test_outputs_that_are_left_out_stay_out(given: Sequence[str]) -> None:
    """Of two poolings one gives the places as well; Clip leaves its lower limit out."""
    nodes = [
        helper.make_node("MaxPool", ["images"], ["a", given[0]], kernel_shape=[2, 2]),
        helper.make_node("MaxPool", ["images"], ["b", given[1]], kernel_shape=[2, 2]),
        helper.make_node("Cast", ["places"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Sum", ["a", "b", "c"], ["d"]),
        helper.make_node("Clip", ["d", "", "limit"], ["out"]),
    ]
    model = graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [1, 3, 3, 3]}, {"limit": np.array(3, np.float32)})
    assert operators_after(model, (1, 3, 4, 4)) == ["MaxPool", "MaxPool", "Cast", "Sum", "Clip"]


def test_draws_in_inner_graphs_are_not_one() -> None:
    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("RandomNormal", [], [name], shape=[4])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])])

    branches = {"then_branch": branch("x"), "else_branch": branch("y")}
    nodes = [helper.make_node("If", ["choice"], [name], **branches) for name in ("a", "b")]
    model = graph([*nodes, helper.make_node("Sub", ["a", "b"], ["out"])], {}, {"out": [4]}, {"choice": np.array(True)})
    assert duplicate_nodes(model.graph) == 0


def test_no_pass_takes_a_name_that_is_taken() -> None:
    """By an input, and by a tensor of an inner graph: both are called as new constants are."""
    value = helper.make_tensor_value_info("out_shape_1", TensorProto.FLOAT, [1, 12])
    branch = helper.make_graph([helper.make_node("Abs", ["out"], ["out_shape_1"])], "branch", [], [value])
    nodes = [
        helper.make_node("Shape", ["out_shape"], ["target"]),
        helper.make_node("Reshape", ["images", "target"], ["out"]),
        helper.make_node("If", ["choice"], ["chosen"], then_branch=branch, else_branch=branch),
    ]
    shapes: dict[str, Sequence[int | str]] = {"images": [1, 3, 4], "out_shape": [1, 12]}
    model = graph(nodes, shapes, {"out": [1, 12], "chosen": [1, 12]}, {"choice": np.array(True)})
    feeds = {"images": _normal(1, 3, 4), "out_shape": _normal(1, 12)}
    before = run_onnx(model, feeds)
    apply_passes(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Reshape", "If"]
    np.testing.assert_array_equal(run_onnx(model, feeds)["chosen"], before["chosen"])


def test_products_of_old_opsets_stay_apart() -> None:
    """Before opset 13 Split took its sizes as an option."""
    products = [helper.make_node("MatMul", ["images", f"w{place}"], [f"out{place}"]) for place in range(3)]
    weights = {f"w{place}": _normal(4, 5) for place in range(3)}
    model = graph(products, {"images": [2, 4]}, {f"out{place}": [2, 5] for place in range(3)}, weights, opset=12)
    assert operators_after(model, (2, 4)) == ["MatMul"] * 3


@pytest.mark.parametrize(("option", "opset"), [("training_mode", 17), ("spatial", 8)])
def test_a_norm_by_other_than_constants_for_each_channel_stays(option: str, opset: int) -> None:
    value = 1 if option == "training_mode" else 0
    shape = (4,) if option == "training_mode" else (4, 6, 6)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["out"]),
    ]
    nodes[1].attribute.append(helper.make_attribute(option, value))
    weights = {"w": _normal(4, 3, 3, 3), "scale": _normal(*shape), "shift": _normal(*shape), "mean": _normal(*shape)}
    weights["var"] = RNG.random(shape, dtype=np.float32) + 1
    model = graph(nodes, {"images": [1, 3, 8, 8]}, {"out": [1, 4, 6, 6]}, weights, opset=opset)
    apply_passes(model)
    assert [node.op_type for node in model.graph.node] == ["Conv", "BatchNormalization"]


def test_rows_of_a_vector_keep_their_axis() -> None:
    """The bias has two axes, the vector one."""
    nodes = [
        helper.make_node("Reshape", ["images", "row"], ["rows"]),
        helper.make_node("Add", ["rows", "bias"], ["sum"]),
        helper.make_node("Reshape", ["sum", "back"], ["out"]),
    ]
    weights = {"row": np.array([1, 4]), "bias": _normal(1, 4), "back": np.array([4])}
    operators_after(graph(nodes, {"images": [4]}, {"out": [4]}, weights), (4,))


@pytest.mark.parametrize(("block_size", "pairs"), [(2, 1), (1, 0)])
def test_codes_of_other_blocks_are_other_codes(block_size: int, pairs: int) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["x"], axis=0, block_size=2),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["again"], axis=0, block_size=block_size),
        helper.make_node("Cast", ["again"], ["out"], to=TensorProto.FLOAT),
    ]
    weights: Weights = {"scale": np.ones((2, 3), np.float32), "zero": np.zeros((2, 3), np.int8)}
    assert quantize_pairs(graph(nodes, {"codes": [4, 3]}, {"out": [4, 3]}, weights, opset=21).graph) == pairs


def test_reshapes_of_the_first_opsets_are_left_alone() -> None:
    """Their target was an option."""
    node = helper.make_node("Reshape", ["images"], ["out"], shape=[1, 12])
    model = graph([node], {"images": [1, 3, 4]}, {"out": [1, 12]}, opset=1)
    before = run_onnx(model, {"images": np.ones((1, 3, 4), np.float32)})["out"]
    apply_passes(model)
    np.testing.assert_array_equal(run_onnx(model, {"images": np.ones((1, 3, 4), np.float32)})["out"], before)
