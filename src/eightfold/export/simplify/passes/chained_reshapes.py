"""Reshape, then Reshape: the last one alone states the shape. So it is with Flatten, Squeeze and Unsqueeze, and with a
Transpose that only moves axes of size 1."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import GraphIndex, attribute, drop_unused
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def chained_reshapes(graph: onnx.GraphProto) -> int:
    """Needs inferred shapes in the graph. Returns the number of chains made shorter."""
    index = GraphIndex(graph)
    changed = 0
    for node in graph.node:
        if not _only_reshapes(index, node):
            continue
        before = index.producer.get(node.input[0])
        if before is not None and _only_reshapes(index, before):
            _reshape(index, node, before.input[0])
            changed += 1
    if changed:
        drop_unused(graph)
    return changed


def _only_reshapes(index: GraphIndex, node: onnx.NodeProto) -> bool:
    taken, made = index.shapes.get(node.input[0] if node.input else ""), index.shapes.get(node.output[0])
    if taken is None or made is None or prod(made) == 0:  # zeros in a Reshape's target mean something else
        return False
    if kind(node) != "Transpose":
        return kind(node) in RESHAPES
    order = attribute(node, "perm", list(reversed(range(len(taken)))))
    moved = [axis for axis in order if taken[axis] != 1]
    return moved == sorted(moved)


def _reshape(index: GraphIndex, node: onnx.NodeProto, start: str) -> None:
    shape = np.array(index.shapes[node.output[0]], np.int64)
    node.op_type = "Reshape"
    del node.attribute[:]
    node.input[:] = [start, index.set_weight(f"{node.output[0]}_shape", shape)]
