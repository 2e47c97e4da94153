"""Additions that are the bias of the layer before them: run as part of it, they can take what compensation adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

Dims = Mapping[str, tuple[int, ...]]


def biases_behind(graph: onnx.GraphProto, dims: Dims) -> dict[str, tuple[str, str]]:
    """First output of a layer without bias -> the vector that the only node behind it adds, and that node's output.

    Args:
        dims: shapes of the floating-point constants.
    """
    index, found = GraphIndex(graph), {}
    for node in graph.node:
        width = _width(node, dims)
        after = index.only_reader(node.output[0]) if width else None
        if after is None or kind(after) != "Add":
            continue
        other = next((name for name in after.input if name != node.output[0]), "")
        if other in dims and _is_bias(dims[other], width, channels_first=kind(node) == "Conv", node=node, dims=dims):
            found[node.output[0]] = (other, after.output[0])
    return found


def _width(node: onnx.NodeProto, dims: Dims) -> int:
    """Output channels of a layer that has no bias of its own; 0 for other nodes."""
    weight = dims.get(node.input[1], ()) if len(node.input) > 1 else ()
    if kind(node) == "MatMul" and len(weight) == 2:
        return weight[1]
    if kind(node) == "Conv" and len(weight) > 2 and (len(node.input) == 2 or not node.input[2]):
        return weight[0]
    return 0


def _is_bias(shape: tuple[int, ...], width: int, *, channels_first: bool, node: onnx.NodeProto, dims: Dims) -> bool:
    """True if adding a constant of this shape adds one number to each channel."""
    behind = len(dims[node.input[1]]) - 2 if channels_first else 0
    if len(shape) <= behind or any(size != 1 for size in shape[len(shape) - behind :]):
        return False
    front = shape[: len(shape) - behind]
    return front[-1] == width and all(size == 1 for size in front[:-1]) and len(front) <= (2 if channels_first else 3)
