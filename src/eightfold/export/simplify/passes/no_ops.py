"""Nodes without effect: Identity, Dropout at inference, Reshape, Flatten and Expand to the shape there is, Slice that
takes all, Pad that adds nothing, Concat of one, Transpose that moves nothing, adding zeros, multiplying by ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.onnx_graph.graph_index import GraphIndex, attribute
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}


def no_ops(graph: onnx.GraphProto) -> int:
    """Remove nodes that return their input. Returns the number removed."""
    index = GraphIndex(graph)
    gone = [node for node in graph.node if (kept := _same_as(index, node)) and index.replace(node.output[0], kept)]
    index.remove(gone)
    return len(gone)


def _same_as(index: GraphIndex, node: onnx.NodeProto) -> str:
    """The input that a node's output equals; "" where there is none."""
    if kind(node) in NEUTRAL:
        # Sums and products know no order; a difference or a quotient is neutral on its right only.
        sides = ((0, 1), (1, 0)) if kind(node) in ("Add", "Mul") else ((0, 1),)
        return next((node.input[kept] for kept, other in sides if _is_neutral(index, node, kept, other)), "")
    return node.input[0] if _is_no_op(index, node) else ""


def _is_neutral(index: GraphIndex, node: onnx.NodeProto, kept: int, other: int) -> bool:
    array, shape = index.array(node.input[other]), index.shapes.get(node.input[kept])
    same_shape = shape is not None and shape == index.shapes.get(node.output[0])
    return array is not None and same_shape and bool((array == NEUTRAL[kind(node)]).all())


def _is_no_op(index: GraphIndex, node: onnx.NodeProto) -> bool:
    op = kind(node)
    if op == "Identity":
        return True
    if op == "Dropout":  # without a training_mode input it is off
        return len(node.input) < 3 and len(node.output) == 1
    if op == "Concat":
        return len(node.input) == 1
    if op in ("Reshape", "Expand", "Flatten"):
        return _keeps_shape(index, node)
    if op == "Slice":
        return _keeps_shape(index, node) and _all(index, node, 4, 1)
    if op == "Pad":
        return len(node.input) > 1 and _all(index, node, 1, 0)
    if op == "Transpose":
        order = attribute(node, "perm", None)
        return order is not None and list(order) == sorted(order)
    return False


def _keeps_shape(index: GraphIndex, node: onnx.NodeProto) -> bool:
    before, after = index.shapes.get(node.input[0]), index.shapes.get(node.output[0])
    return before is not None and before == after


def _all(index: GraphIndex, node: onnx.NodeProto, place: int, number: int) -> bool:
    """True if the input in that place is a constant of that number only, or not given."""
    if len(node.input) <= place or not node.input[place]:
        return True
    array = index.array(node.input[place])
    return array is not None and bool((array == number).all())
