"""Values of tensors that follow from constants alone, such as a shape that is put together node by node."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.names import inner_graphs

if TYPE_CHECKING:
    import onnx

# Shapes are made by a few nodes of a few numbers; more is no shape.
MOST_NODES, MOST_VALUES = 64, 4096


def constant_value(model: onnx.ModelProto, index: GraphIndex, name: str) -> Array | None:
    """The value of a tensor, where constants alone decide on it; None where an input does, or where it is no shape.

    Args:
        index: of the graph of `model`.
    """
    known = index.array(name)
    if known is not None:
        return known
    nodes = _upstream(index, name)
    if not nodes:
        return None
    from onnx import ValueInfoProto, helper
    from onnx.reference import ReferenceEvaluator

    read = {each for node in nodes for each in node.input}
    weights = [tensor for each, tensor in index.weights.items() if each in read]
    graph = helper.make_graph(nodes, "constant", [], [ValueInfoProto(name=name)], weights)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        found: Any = ReferenceEvaluator(part).run(None, {})
        return np.asarray(found[0])
    except Exception:  # an operator that it lacks raises anything: then the value is not known
        return None


def _upstream(index: GraphIndex, name: str) -> list[onnx.NodeProto]:
    """The nodes that a tensor follows from, in the graph's order; none where an input or much data counts."""
    found: list[onnx.NodeProto] = []
    waiting, seen = [name], set[str]()
    while waiting:
        each = waiting.pop()
        if not each or each in seen:
            continue
        seen.add(each)
        if each in index.weights:
            if math.prod(index.weights[each].dims) > MOST_VALUES:
                return []
            continue
        node = index.producer.get(each)
        if node is None or len(found) == MOST_NODES or any(inner_graphs(node)):
            return []
        if node not in found:
            found.append(node)
        waiting += node.input
    places = {id(node): place for place, node in enumerate(index.graph.node)}
    return sorted(found, key=lambda node: places.get(id(node), 0))
