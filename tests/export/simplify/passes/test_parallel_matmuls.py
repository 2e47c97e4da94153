from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from tests.export.networks import graph
from tests.export.simplify.passes.oracle import operators_after

Weights = dict[str, NDArray[np.generic]]
WIDTHS = {"query": 4, "key": 4, "value": 6}


def _products(*names: str) -> tuple[list[onnx.NodeProto], Weights]:
    rng = np.random.default_rng(0)
    weights: Weights = {f"{name}.w": rng.standard_normal((5, WIDTHS[name]), dtype=np.float32) for name in names}
    return [helper.make_node("MatMul", ["images", f"{name}.w"], [name]) for name in names], weights


def _negated(nodes: list[onnx.NodeProto], weights: Weights) -> onnx.ModelProto:
    """Each product goes on to something of its own."""
    names = [node.output[0] for node in nodes]
    nodes = [*nodes, *(helper.make_node("Neg", [name], [f"{name}.out"]) for name in names)]
    return graph(nodes, {"images": [2, 3, 5]}, {f"{name}.out": [2, 3, WIDTHS[name]] for name in names}, weights)


def test_three_products_of_one_tensor_become_one() -> None:
    model = _negated(*_products("query", "key", "value"))
    assert operators_after(model, (2, 3, 5)) == ["MatMul", "Split", "Neg", "Neg", "Neg"]


def test_products_that_are_outputs_keep_their_names() -> None:
    nodes, weights = _products("query", "key", "value")
    outputs = {name: [2, 3, width] for name, width in WIDTHS.items()}
    model = graph(nodes, {"images": [2, 3, 5]}, {**outputs}, weights)
    assert operators_after(model, (2, 3, 5)) == ["MatMul", "Split"]
    assert [value.name for value in model.graph.output] == list(WIDTHS)


def test_two_products_stay() -> None:
    model = _negated(*_products("query", "key"))
    assert operators_after(model, (2, 3, 5)) == ["MatMul", "MatMul", "Neg", "Neg"]


@pytest.mark.parametrize("change", ["bias", "other tensor", "shared weight", "computed weight"])
def test_other_products_stay(change: str) -> None:
    nodes, weights = _products("query", "key", "value")
    last = nodes[-1]
    if change == "bias":
        weights["b"] = np.ones(WIDTHS["value"], np.float32)
        last.output[0] = "product"
        nodes.append(helper.make_node("Add", ["product", "b"], ["value"]))
    elif change == "other tensor":
        nodes.insert(0, helper.make_node("Relu", ["images"], ["positive"]))
        last.input[0] = "positive"
    elif change == "shared weight":
        nodes[1].input[1] = nodes[0].input[1]
    else:
        nodes[:0] = [
            helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["value.w", "largest"], ["computed"]),
        ]
        last.input[1] = "computed"
    names = list(WIDTHS)
    nodes += [helper.make_node("Neg", [name], [f"{name}.out"]) for name in names]
    outputs = {f"{name}.out": [2, 3, WIDTHS[name]] for name in names}
    model = graph(nodes, {"images": [2, 3, 5]}, {**outputs}, weights)
    assert "Split" not in operators_after(model, (2, 3, 5))
