"""Layers with weights, as views: which axis of a weight is whose channel, for convolutions of any grouping and for
dense layers of either orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eightfold.arrays import Array
from eightfold.extras import require
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.graph_index import attribute
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float64]
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
BIAS_INPUT = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with a constant weight. Views of weights are (groups, outputs, inputs, kernel positions), per group."""

    node: onnx.NodeProto
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the node, or of its first output."""
        return label(self.node)

    @property
    def weight(self) -> str:
        """Name of the weight."""
        return str(self.node.input[1])

    @property
    def bias(self) -> str:
        """Name of the bias, empty where there is none."""
        position = BIAS_INPUT.get(self.node.op_type, 0)
        return str(self.node.input[position]) if 0 < position < len(self.node.input) else ""

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for other layers."""
        return int(attribute(self.node, "group", 1)) if "Conv" in self.node.op_type else 1

    @property
    def channels(self) -> int:
        """Number of outputs."""
        if self.node.op_type == "ConvTranspose":
            return self.shape[1] * self.groups
        return self.shape[self.output_axis]

    @property
    def output_axis(self) -> int:
        """The axis of the weight that holds the output channels (of one group, for ConvTranspose)."""
        if self.node.op_type == "MatMul":
            return len(self.shape) - 1
        if self.node.op_type == "Gemm":
            return 0 if attribute(self.node, "transB", 0) else 1
        return 1 if self.node.op_type == "ConvTranspose" else 0

    def view(self, weight: Array) -> Array:
        """A weight as (groups, outputs, inputs, positions)."""
        if self.node.op_type == "ConvTranspose":
            inputs = weight.shape[0] // self.groups
            return weight.reshape(self.groups, inputs, weight.shape[1], -1).transpose(0, 2, 1, 3)
        if self.node.op_type == "Conv":
            return weight.reshape(self.groups, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
        matrix = weight if self.output_axis == 0 else weight.T
        return matrix[None, :, :, None]

    def unview(self, viewed: Array) -> Array:
        """The inverse of `view`."""
        if self.node.op_type == "ConvTranspose":
            return np.ascontiguousarray(viewed.transpose(0, 2, 1, 3)).reshape(self.shape)
        if self.node.op_type == "Conv":
            return np.ascontiguousarray(viewed).reshape(self.shape)
        matrix = viewed[0, :, :, 0]
        return np.ascontiguousarray(matrix if self.output_axis == 0 else matrix.T)


def layers_of(graph: ModelGraph) -> list[Layer]:
    """The layers whose weight is a constant and whose input is an activation, in the graph's order."""
    found = []
    for node in graph.model.graph.node:
        plain = kind(node) in WEIGHTED and attribute(node, "alpha", 1.0) == 1.0 and not attribute(node, "transA", 0)
        if plain and node.input[1] in graph.weights and node.input[0] not in graph.weights:
            found.append(Layer(node, tuple(graph.weights[node.input[1]].dims)))
    return [layer for layer in found if layer.node.op_type != "MatMul" or len(layer.shape) == 2]


def label(node: onnx.NodeProto) -> str:
    """A node's name, or its first output where it has none."""
    return str(node.name or node.output[0])


def value_of(tensor: onnx.TensorProto) -> Array:
    """Content of a constant as an array."""
    array: Array = require("onnx", "read models").numpy_helper.to_array(tensor)
    return array


def set_value(tensor: onnx.TensorProto, value: Array) -> None:
    """Replace a constant's value, in its own type."""
    helper = require("onnx", "edit models").numpy_helper
    tensor.CopyFrom(helper.from_array(value.astype(value_of(tensor).dtype), tensor.name))
