"""Checks a graph for nodes that TensorRT's parser is known to refuse, and names the remedy, which the parser's messages
do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from eightfold.errors import BuildError
from eightfold.export.target_names import EngineTarget
from eightfold.files import PathLike
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.onnx_files import tensor_specs

if TYPE_CHECKING:
    import onnx

# Quantized layers as one operator, which only CPU runtimes have.
CPU_OPS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
CODES = frozenset({"QuantizeLinear", "DequantizeLinear"})


def require_takable(model: onnx.ModelProto, path: PathLike, target: EngineTarget) -> None:
    """Raises BuildError naming the first node that TensorRT is known to refuse, ModelError for sizes not fixed."""
    tensor_specs(model)
    for node, reason, remedy in _refused(model, target):
        raise BuildError(
            f"node {node.name or node.output[0]!r} of {path} is {reason}",
            allowed="operators of TensorRT's ONNX support table, and Q/DQ pairs that are signed and symmetric",
            remedy=remedy,
        )


def _refused(model: onnx.ModelProto, target: EngineTarget) -> Iterator[tuple[onnx.NodeProto, str, str]]:
    index = GraphIndex(model.graph)
    again = f"quantize the FP32 graph for this target: eightfold quantize FP32.onnx RANGES --target {target.name}"
    for node in model.graph.node:
        if node.op_type in CPU_OPS or node.domain == "com.microsoft":
            yield node, f"{node.domain}.{node.op_type}".lstrip(".") + ", made for CPUs", again
        elif node.op_type in CODES and not target.dla and not _symmetric(index, node):
            yield node, f"a {node.op_type} with unsigned or shifted codes, made for CPUs", again
        elif node.op_type == "NonMaxSuppression" and target.family == "rtx":
            remedy = "export without --decode: the runtime decodes after the engine"
            yield node, "NonMaxSuppression, which TensorRT-RTX does not have", remedy


def _symmetric(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """True if the zero point is signed and zero; one that is left out means unsigned codes at a Q, and any at a DQ."""
    if len(node.input) < 3 or not node.input[2]:
        return node.op_type == "DequantizeLinear"
    zero = index.array(node.input[2])
    # Biases have int32 codes.
    return zero is None or (zero.dtype in (np.dtype(np.int8), np.dtype(np.int32)) and not zero.any())
