"""Vectors of one value: each node gets its own.

Exporters write a group norm as an InstanceNormalization whose scale is one and whose shift is zero, and simplifiers
merge constants that are equal. All norms of a network then read the same two vectors, and a plan would have to remove
the same channels at all of them. A vector that holds one value throughout says nothing about channels: it only has to
be as long as they are many.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.compress.onnx.constants import as_tensor, is_host, uses_of
from eightfold.onnx_graph.graph_index import GraphIndex

if TYPE_CHECKING:
    import onnx


def give_own_vectors(graph: onnx.GraphProto, folder: Path) -> int:
    """Let each node read its own copy of a vector of one value, in place. Returns the number of copies.

    Vectors that are inputs or outputs of the graph stay shared, and so do those that inner graphs read.

    Args:
        folder: of the graph's external weights.
    """
    uses, index = uses_of(graph), GraphIndex(graph)
    fixed = index.outputs | index.captured | {value.name for value in graph.input}
    shared = {
        tensor.name: tensor
        for tensor in graph.initializer
        if len(uses.get(tensor.name, [])) > 1
        and tensor.name not in fixed
        and not is_host(tensor, uses[tensor.name])
        and _holds_one_value(tensor, folder)
    }
    taken: set[str] = set()
    copies = 0
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in taken:
                copy = graph.initializer.add()
                copy.CopyFrom(shared[name])
                copy.name = node.input[slot] = index.free(name)
                copies += 1
            elif name in shared:
                taken.add(name)
    return copies


def _holds_one_value(tensor: onnx.TensorProto, folder: Path) -> bool:
    """True for a vector, or a matrix or map with one long dimension, whose values are all equal."""
    if sum(size > 1 for size in tensor.dims) != 1:
        return False
    values = as_tensor(tensor, folder)
    return bool((values == values.reshape(-1)[0]).all())
