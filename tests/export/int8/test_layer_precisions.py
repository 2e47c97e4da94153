from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from eightfold.export.int8.layer_precisions import layer_precisions


def model_of(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], stored))


def test_layers_are_counted_by_what_their_weights_are() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "float"], ["a"]),
        helper.make_node("DequantizeLinear", ["int", "scale"], ["w"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Transpose", ["half"], ["t"]),
        helper.make_node("MatMul", ["c", "t"], ["d"]),
        helper.make_node("MatMul", ["d", "c"], ["e"]),
        helper.make_node("QLinearConv", ["e"] * 8, ["y"]),
    ]
    weights: dict[str, NDArray[Any]] = {
        "float": np.ones((1, 1, 1, 1), np.float32),
        "int": np.ones((1, 1, 1, 1), np.int8),
        "scale": np.array(1, np.float32),
        "half": np.ones((1, 1), np.float16),
    }
    assert layer_precisions(model_of(nodes, weights)) == {"fp32": 2, "int8": 2, "fp16": 1}


def test_a_graph_without_layers() -> None:
    assert layer_precisions(model_of([helper.make_node("Relu", ["x"], ["y"])], {})) == {}
