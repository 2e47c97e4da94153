"""Nodes without effect: Identity, Dropout at inference, Reshape, Flatten and Expand to the shape there is, Transpose
that moves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.export.passes.graph_index import GraphIndex, attribute

if TYPE_CHECKING:
    import onnx


def no_ops(graph: onnx.GraphProto) -> int:
    index = GraphIndex(graph)
    gone = [node for node in graph.node if _is_no_op(index, node) and index.replace(node.output[0], node.input[0])]
    index.remove(gone)
    return len(gone)


def _is_no_op(index: GraphIndex, node: onnx.NodeProto) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":  # without a training_mode input it is off
        return len(node.input) < 3 and len(node.output) == 1
    if node.op_type in ("Reshape", "Expand", "Flatten"):
        before, after = index.shapes.get(node.input[0]), index.shapes.get(node.output[0])
        return before is not None and before == after
    if node.op_type == "Transpose":
        order = attribute(node, "perm", None)
        return order is not None and list(order) == sorted(order)
    return False
