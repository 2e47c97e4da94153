"""Folds the parts of a fixed-size graph that do not depend on its images: sizes, masks, grids. A run on any input tells
the values.

A tensor is constant where no input's values reach it. The operator Shape stops them: an activation always has the same
shape where no operator on the way takes a size from the images' values, as NonZero and NonMaxSuppression do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array
from eightfold.export.simplify.passes.duplicates import RANDOM_OPS
from eightfold.onnx_graph.graph_index import attribute, drop_unused, keep
from eightfold.onnx_graph.names import captured_names, inner_graphs
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# The shape of what they make follows from the shapes of what they take.
BY_SHAPES = frozenset({
    "Abs", "Acos", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool", "BatchNormalization",
    "BitShift", "BitwiseAnd", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat", "Conv", "ConvInteger",
    "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum",
    "Elu", "Equal", "Erf", "Exp", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu",
    "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "LpPool",
    "MatMul", "MatMulInteger", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu",
    "Pow", "QuantizeLinear", "RMSNormalization", "RNN", "Reciprocal", "Relu", "RoiAlign", "Round",
    "ScatterElements", "ScatterND", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Softmax",
    "Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    "Transpose", "Trilu", "Where", "Xor",
})  # fmt: skip
# Likewise, if the inputs from this one on are constant: sizes, axes, amounts.
BY_SIZES = {
    "ConstantOfShape": 0,
    "Expand": 1,
    "OneHot": 1,
    "Pad": 1,
    "Range": 0,
    "ReduceL1": 1,
    "ReduceL2": 1,
    "ReduceLogSumExp": 1,
    "ReduceMax": 1,
    "ReduceMean": 1,
    "ReduceMin": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "ReduceSumSquare": 1,
    "Reshape": 1,
    "Resize": 1,
    "Slice": 1,
    "Split": 1,
    "Squeeze": 1,
    "Tile": 1,
    "TopK": 1,
    "Unsqueeze": 1,
    "Upsample": 1,
}
# Q/DQ pairs state how a network is quantized, around weights, too. Sequences cannot be weights.
NEVER_CONSTANT = RANDOM_OPS | {
    "DequantizeLinear",
    "Optional",
    "QuantizeLinear",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceMap",
    "SplitToSequence",
}
NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def computed_constants(graph: onnx.GraphProto) -> list[str]:
    """Names of constants that are computed and that something else reads."""
    found = _constants(graph)
    read = set(captured_names(graph))
    for node in graph.node:
        if not found.issuperset(node.output):
            read.update(node.input)
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    return [name for node in nodes for name in node.output if name in found and name in read and name]


def freeze_constants(graph: onnx.GraphProto, values: Mapping[str, Array]) -> int:
    """Put the `values` of computed constants, and those that Constant nodes hold, in the place of the nodes that make
    them. Returns by how many nodes the graph is smaller now."""
    from onnx import numpy_helper

    before = len(graph.node)
    outputs = {value.name for value in graph.output}
    stated = {node.output[0]: tensor for node in graph.node for tensor in stated_constants(node)}
    computed = {name: numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()}
    known = {name: tensor for name, tensor in (stated | computed).items() if name not in outputs}
    keep(graph.node, lambda node: known.keys().isdisjoint(node.output))
    graph.initializer.extend(known.values())
    drop_unused(graph)
    return before - len(graph.node)


def stated_constants(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """The tensor that a Constant node holds, under the name of its output; none where it is text or sparse."""
    from onnx import TensorProto, numpy_helper

    if node.op_type != "Constant":
        return
    value = attribute(node, "value", None)
    if value is not None and value.data_type != TensorProto.STRING:
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        yield tensor
    for field, dtype in NUMBERS.items():
        if (number := attribute(node, field, None)) is not None:
            yield numpy_helper.from_array(np.array(number, dtype), node.output[0])


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Names of constants that nodes make."""
    outputs = {value.name for value in graph.output}
    weights = {tensor.name for tensor in graph.initializer}
    known = weights | {""}
    shaped = known | {value.name for value in graph.input}
    for node in graph.node:
        if _is_constant(node, known, shaped) and outputs.isdisjoint(node.output):
            known.update(node.output)
            shaped.update(node.output)
        elif _has_fixed_shape(node, known, shaped):
            shaped.update(node.output)
    return known - weights


def _is_constant(node: onnx.NodeProto, known: set[str], shaped: set[str]) -> bool:
    if kind(node) in ("", *NEVER_CONSTANT) or any(inner_graphs(node)):
        return False
    if node.op_type == "Constant":
        return any(True for _ in stated_constants(node))
    return all(name in (shaped if node.op_type in ("Shape", "Size") else known) for name in node.input)


def _has_fixed_shape(node: onnx.NodeProto, known: set[str], shaped: set[str]) -> bool:
    if not kind(node) or not shaped.issuperset(node.input):
        return False
    first_size = BY_SIZES.get(node.op_type)
    if first_size is not None:
        return known.issuperset(node.input[first_size:])
    return node.op_type in BY_SHAPES
