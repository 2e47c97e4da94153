"""The QOperator form of a graph: QLinear operators in place of Q/DQ pairs, for onnxruntime on a CPU."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.extras import require
from eightfold.files import PathLike, atomic_path

if TYPE_CHECKING:
    import onnx

QUANTIZED_NAME = re.compile(r"(.+)_quantized((?:_\d+)?)", re.DOTALL)
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
        found = QUANTIZED_NAME.fullmatch(name)
        shown = f"{found[1]}_dequantized{found[2]}" if found else ""
        if at is not None and shown and shown not in made:
            nodes.append(helper.make_node("DequantizeLinear", [name, *node.input[at : at + 2]], [shown]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def dequantized_forms(model: onnx.ModelProto) -> dict[str, str]:
    """Float tensor -> the same behind its codes, in a quantized graph made by `quantize`; see `with_dequantized`.

    The pair behind a tensor tells where there is one. Where onnxruntime has merged it, the names tell: that of the
    codes ends in a number where the graph had a tensor of that name.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    shown = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in weights]
    named = {each.input[0]: QUANTIZED_NAME.fullmatch(each.input[0]) for each in shown}
    # The later ones count: first what names tell, then pairs, of each the first one.
    outputs = {found[1]: each.output[0] for each in reversed(shown) if (found := named[each.input[0]])}
    return outputs | {source[each.input[0]]: each.output[0] for each in reversed(shown) if each.input[0] in source}
