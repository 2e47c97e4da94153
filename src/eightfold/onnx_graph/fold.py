"""Rewrites that a graph wants before it is quantized. Names of the tensors that stay do not change, so that ranges made
on the original graph still fit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.extras import require
from eightfold.onnx_graph.graph import Graph
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


def prepare(graph: Graph) -> onnx.ModelProto:
    """A copy with constants where weights are looked for, batch norms folded into the convolution before them, and
    spatial means written as average pooling."""
    model = copy.deepcopy(graph.model)
    constants_become_weights_(model)
    fold_batch_norms_(model)
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


def fold_batch_norms_(model: onnx.ModelProto) -> int:
    """Fold BatchNormalization into the Conv whose only reader it is, in place. Returns how many were folded."""
    graph = Graph(model, "")
    pairs = [
        (graph.producer.get(node.input[0]), node) for node in model.graph.node if kind(node) == "BatchNormalization"
    ]
    folded = [(conv, norm) for conv, norm in pairs if conv is not None and _is_foldable(graph, conv, norm)]
    for conv, norm in folded:
        _fold(model, graph, conv, norm)
        model.graph.node.remove(norm)
    return len(folded)


def _is_foldable(graph: Graph, conv: onnx.NodeProto, norm: onnx.NodeProto) -> bool:
    constants = [*norm.input[1:5], *conv.input[1:]]
    only_reader = len(graph.consumers[conv.output[0]]) == 1 and conv.output[0] not in graph.outputs
    return kind(conv) == "Conv" and only_reader and all(name in graph.initializers for name in constants)


def _fold(model: onnx.ModelProto, graph: Graph, conv: onnx.NodeProto, norm: onnx.NodeProto) -> None:
    helper = require("onnx", "edit models").numpy_helper

    def value(name: str) -> Any:
        return helper.to_array(graph.initializers[name]).astype(np.float64)

    gamma, beta, mean, variance = (value(name) for name in norm.input[1:5])
    epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), 1e-5)
    gain = gamma / np.sqrt(variance + epsilon)
    weight = value(conv.input[1])
    bias = value(conv.input[2]) if len(conv.input) > 2 else 0.0
    new = {
        f"{norm.output[0]}_weight": weight * gain.reshape(-1, *[1] * (weight.ndim - 1)),
        f"{norm.output[0]}_bias": beta + (bias - mean) * gain,
    }
    model.graph.initializer.extend(helper.from_array(array.astype(np.float32), name) for name, array in new.items())
    del conv.input[1:]
    conv.input.extend(new)
    conv.output[0] = norm.output[0]


def pool_spatial_means_(model: onnx.ModelProto) -> int:
    """Write ReduceMean over the last two of four axes as GlobalAveragePool, which integers can run, in place."""
    graph = Graph(model, "")
    changed = 0
    for node in model.graph.node:
        if kind(node) == "ReduceMean" and _is_spatial_mean(graph, node):
            del node.input[1:], node.attribute[:]
            node.op_type = "GlobalAveragePool"
            changed += 1
    return changed


def _is_spatial_mean(graph: Graph, node: onnx.NodeProto) -> bool:
    helper = require("onnx", "edit models")
    given = {attribute.name: helper.helper.get_attribute_value(attribute) for attribute in node.attribute}
    axes = given.get("axes")
    if len(node.input) > 1 and node.input[1] in graph.initializers:
        axes = helper.numpy_helper.to_array(graph.initializers[node.input[1]]).tolist()
    rank = len(graph.types.get(node.input[0], (0, ()))[1])
    return rank == 4 and given.get("keepdims", 1) == 1 and sorted(axis % 4 for axis in axes or ()) == [2, 3]
