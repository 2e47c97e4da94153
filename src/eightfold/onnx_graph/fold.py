"""Rewrites that a graph wants before it is quantized. Names of the tensors that stay do not change, so that ranges made
on the original graph still fit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from eightfold.onnx_graph.fold_norms import norm_into_conv
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.graph_index import attribute
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
    """Store the tensors of Constant nodes, and of Identity nodes that exporters put behind weights that layers share,
    as weights of the same name, in place. Returns how many."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    kept, changed = [], 0
    for node in model.graph.node:
        tensor = _constant(node, weights)
        if tensor is None or node.output[0] in outputs:
            kept.append(node)
            continue
        added = model.graph.initializer.add()
        added.CopyFrom(tensor)
        added.name = node.output[0]
        weights[added.name] = added
        changed += 1
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return changed


def _constant(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    if kind(node) == "Identity":
        return weights.get(node.input[0])
    if kind(node) == "Constant":
        return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
    return None


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
