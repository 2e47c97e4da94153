"""Rewrites that a graph wants before it is quantized. Names of the tensors that stay do not change, so that ranges made
on the original graph still fit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from eightfold.onnx_graph.fold_norms import norm_into_conv
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.graph_index import attribute
from eightfold.onnx_graph.names import captured_names, rename_reads
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


def prepare_for_int8(graph: ModelGraph) -> onnx.ModelProto:
    """A copy with constants where weights are looked for, batch norms folded into the convolution before them, and
    spatial means written as average pooling."""
    model = copy.deepcopy(graph.model)
    constants_become_weights_(model)
    norm_into_conv(model.graph)
    pool_spatial_means_(model)
    return model


def constants_become_weights_(model: onnx.ModelProto) -> int:
    """Turn nodes that only name a constant into weights, in place: the tensors of Constant nodes and weights that are
    stored in 16 bits are stored under the names that their readers use. Identity nodes stand behind weights that layers
    share: the readers get the weight itself, or a copy of a vector, as each layer's bias has its own scale. Returns
    how many nodes went."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    visible = outputs | set(captured_names(model.graph))
    same: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        rename_reads([node], same)
        value = _constant(node, weights)
        made = node.output[0] if node.output else ""
        if value is None or made in outputs:
            kept.append(node)
        elif kind(node) == "Identity" and len(value.dims) > 1 and made not in visible:
            same[made] = value.name
        else:
            added = model.graph.initializer.add()
            added.CopyFrom(value)
            added.name = made
            weights[made] = added
    changed = len(model.graph.node) - len(kept)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return changed


def _constant(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    if kind(node) == "Identity":
        return weights.get(node.input[0])
    if kind(node) == "Cast" and node.input[0] in weights:
        return _cast(weights[node.input[0]], attribute(node, "to", 0))
    if kind(node) == "Constant":
        return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
    return None


def _cast(weight: onnx.TensorProto, to: int) -> onnx.TensorProto | None:
    """A weight that is stored in 16 bits and computed with in float32, as float32."""
    from onnx import TensorProto, numpy_helper

    if to != TensorProto.FLOAT or weight.data_type not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return None
    return numpy_helper.from_array(numpy_helper.to_array(weight).astype("float32"), weight.name)


def pool_spatial_means_(model: onnx.ModelProto) -> int:
    """Write ReduceMean over the last two of four axes as GlobalAveragePool, which integers can run, in place."""
    graph = ModelGraph(model, "")
    changed = 0
    for node in model.graph.node:
        if kind(node) == "ReduceMean" and _is_spatial_mean(graph, node):
            del node.input[1:], node.attribute[:]
            node.op_type = "GlobalAveragePool"
            changed += 1
    return changed


def _is_spatial_mean(graph: ModelGraph, node: onnx.NodeProto) -> bool:
    given = graph.array(node.input[1]) if len(node.input) > 1 else None
    axes = attribute(node, "axes", ()) if given is None else given.tolist()
    rank = len(graph.types.get(node.input[0], (0, ()))[1])
    return rank == 4 and attribute(node, "keepdims", 1) == 1 and sorted(axis % 4 for axis in axes) == [2, 3]
