"""The QOperator form of a graph: QLinear operators in place of Q/DQ pairs, for onnxruntime on a CPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.extras import require
from eightfold.files import PathLike, atomic_path

if TYPE_CHECKING:
    import onnx

# Operator -> which input holds the scale of its output; the zero point is the next one.
OUTPUT_SCALE = {
    "QuantizeLinear": 1,
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QGemm": 7,
    "QLinearSigmoid": 3,
    "QLinearLeakyRelu": 3,
    "QLinearAveragePool": 3,
    "QLinearGlobalAveragePool": 3,
    "QLinearConcat": 0,
}


def qoperator_form(int8_path: PathLike, output: PathLike) -> Path:
    """Write the graph with QLinear operators in place of Q/DQ pairs, as this onnxruntime merges them.

    The two forms run the same kernels where all pairs merge. The file depends on the version of onnxruntime.
    """
    ort = require("onnxruntime", "merge Q/DQ pairs")
    with atomic_path(output) as temporary:
        options = ort.SessionOptions()
        # Higher levels write layouts that only this machine's kernels read.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(temporary)
        ort.InferenceSession(str(int8_path), options, providers=["CPUExecutionProvider"])
    return Path(output)


def with_dequantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every `X_quantized` that a QLinear operator makes can be read as `X_dequantized`."""
    helper = require("onnx", "edit models").helper
    model = copy.deepcopy(model)
    made = {name for node in model.graph.node for name in node.output}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        at, name = OUTPUT_SCALE.get(node.op_type), node.output[0]
        shown = f"{name.removesuffix('_quantized')}_dequantized"
        if at is not None and name.endswith("_quantized") and shown not in made:
            nodes.append(helper.make_node("DequantizeLinear", [name, *node.input[at : at + 2]], [shown]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
