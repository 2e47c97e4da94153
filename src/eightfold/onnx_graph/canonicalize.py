"""Brings an ONNX graph into one canonical form: no weight is an input as well, all weights are dense, an axis of
unknown length has none, outputs state their shapes, and local functions are inlined."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import keep
from eightfold.onnx_graph.names import reads_of
from eightfold.onnx_graph.shape_inference import state_outputs

if TYPE_CHECKING:
    import onnx

# Before it, weights have to be inputs as well.
LOWEST_IR_VERSION = 4


def canonicalized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network; `model` itself, changed, where it brings no functions along.

    Its weights may still lie in other files: they are not copied.
    """
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model, convert_version=True)
    _make_dense(model.graph)
    weights = {tensor.name for tensor in model.graph.initializer}
    keep(model.graph.input, lambda value: value.name not in weights)
    _forget_negative_sizes(model.graph)
    state_outputs(model)
    model.ir_version = max(model.ir_version, LOWEST_IR_VERSION)
    return model


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it reads, in place. The standard asks for that order, onnxruntime takes any. A
    circle is left as it is."""
    made = {name for node in graph.node for name in node.output if name}
    needs = [{name for name in reads_of(node) if name in made} for node in graph.node]
    known: set[str] = set()
    for node, needed in zip(graph.node, needs, strict=True):
        if not needed <= known:
            break
        known.update(node.output)
    else:
        return
    left, order = list(zip(graph.node, needs, strict=True)), []
    known.clear()
    while left:
        ready = [node for node, needed in left if needed <= known]
        if not ready:
            return
        left = [(node, needed) for node, needed in left if not needed <= known]
        order += ready
        known.update(name for node in ready for name in node.output)
    copied = [type(node).FromString(node.SerializeToString()) for node in order]
    del graph.node[:]
    graph.node.extend(copied)


def _forget_negative_sizes(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 for an axis of any length."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.Clear()


def _make_dense(graph: onnx.GraphProto) -> None:
    graph.initializer.extend(_dense(tensor) for tensor in graph.sparse_initializer)
    del graph.sparse_initializer[:]


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Places are stated as numbers into the flat tensor, or as coordinates."""
    from onnx import numpy_helper

    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dims = tuple(sparse.dims)
    flat = np.zeros(math.prod(dims), values.dtype)
    flat[np.ravel_multi_index(tuple(places.T), dims) if places.ndim == 2 else places] = values
    return numpy_helper.from_array(flat.reshape(dims), sparse.values.name)
