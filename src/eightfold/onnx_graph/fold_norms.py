"""Folds BatchNormalization into the convolution before it: with g = scale / sqrt(var + eps),
norm(W x + b) = (g W) x + g (b - mean) + shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import GraphIndex, attribute
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# Operator -> axis of the weight that holds the output channels.
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}


def is_inference_norm(node: onnx.NodeProto) -> bool:
    """True if a node normalizes each channel by constants; others use the mean and variance of their input, or, before
    opset 9, have some for each place."""
    given = [name for name in node.output if name]
    own = attribute(node, "training_mode", 0) or not attribute(node, "spatial", 1)
    return kind(node) == "BatchNormalization" and len(given) == 1 and not own


def norm_into_conv(graph: onnx.GraphProto) -> int:
    """Fold each BatchNormalization into the convolution whose only reader it is, in place. Returns how many."""
    index = GraphIndex(graph)
    gone: list[onnx.NodeProto] = []
    for norm in graph.node:
        if not is_inference_norm(norm):
            continue
        conv = index.producer.get(norm.input[0])
        alone = index.only_reader(norm.input[0]) is norm
        if conv is None or not alone or not _fold(index, conv, norm):
            continue
        conv.output[0] = norm.output[0]
        gone.append(norm)
    index.remove(gone)
    return len(gone)


def _fold(index: GraphIndex, conv: onnx.NodeProto, norm: onnx.NodeProto) -> bool:
    grouped_transpose = kind(conv) == "ConvTranspose" and attribute(conv, "group", 1) != 1
    if kind(conv) not in CHANNEL_AXIS or grouped_transpose:
        return False
    arrays = [index.array(name) for name in (conv.input[1], *norm.input[1:5])]
    bias = index.array(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else np.zeros(1, np.float32)
    if bias is None or any(array is None for array in arrays):
        return False
    weight, scale, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    gain = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    shape = [1] * weight.ndim
    shape[CHANNEL_AXIS[kind(conv)]] = -1
    dtype = np.asarray(arrays[0]).dtype
    new_weight = index.set_weight(f"{conv.input[1]}_normed", (weight * gain.reshape(shape)).astype(dtype))
    new_bias = index.set_weight(f"{conv.input[1]}_shift", (gain * (bias - mean) + shift).astype(dtype))
    conv.input[:] = [conv.input[0], new_weight, new_bias]
    return True
