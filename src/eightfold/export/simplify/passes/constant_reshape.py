"""Reshape to a computed shape: where every size is static, the shape is a constant, and what computed it can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import GraphIndex, drop_unused
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# Operator -> which input is the target shape.
SHAPE_INPUT = {"Reshape": 1, "Expand": 1}


def constant_reshape(graph: onnx.GraphProto) -> int:
    """Needs inferred shapes in the graph. Returns the number of targets made constant."""
    index = GraphIndex(graph)
    changed = 0
    for node in graph.node:
        place = SHAPE_INPUT.get(kind(node))
        if place is None or node.input[place] in index.weights:
            continue
        shape = index.shapes.get(node.output[0])
        if shape is not None and all(shape):
            node.input[place] = index.set_weight(f"{node.output[0]}_shape", np.array(shape, np.int64))
            changed += 1
    if changed:
        drop_unused(graph)
    return changed
