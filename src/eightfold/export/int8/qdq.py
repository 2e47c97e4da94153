"""Writes the QuantizeLinear and DequantizeLinear nodes of a `QdqPlan` into a graph. Deterministic: the same graph and
plan give the same bytes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array
from eightfold.export.int8.int8 import ActivationType, QuantizedWeight, quantize_bias, quantize_weight
from eightfold.export.int8.qdq_plan import Edge, QdqPlan
from eightfold.extras import require
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.names import FreeNames, all_names, node_names, reads_of

if TYPE_CHECKING:
    import onnx

BIASED = {"Conv": 2, "Gemm": 2}  # operator -> input that holds its bias
WeightKey = tuple[str, int | None, bytes, tuple[int, ...]]  # name, axis and scale of a weight, shape with its padding


def apply_qdq(graph: ModelGraph, plan: QdqPlan) -> onnx.ModelProto:
    """A quantized copy of the graph's model."""
    return _Writer(graph, plan).write()


@dataclass(frozen=True)
class StoredWeight:
    """Names of the constants of a quantized weight; `values` is empty where the file holds float weights."""

    values: str
    scale: str
    zero: str


@dataclass
class _Writer:
    graph: ModelGraph
    plan: QdqPlan
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    # (what it belongs to, the name wanted for it) -> its name
    named: dict[tuple[str, str], str] = field(default_factory=dict)
    stored: dict[WeightKey, StoredWeight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = FreeNames(all_names(self.graph.model.graph))
        self.node_names = FreeNames(node_names(self.graph.model.graph))

    def write(self) -> onnx.ModelProto:
        model = copy.deepcopy(self.graph.model)
        if self.graph.input.name in self.plan.tensors:
            self._pair(self.graph.input.name, self.graph.input.name)
        for index, node in enumerate(model.graph.node):
            self._rewire(index, node)
            self.nodes.append(node)
            for position, name in enumerate(node.output):
                if name in self.plan.tensors:
                    node.output[position] = self._pair_output(name)
        self._store(model)
        return model

    def _pair_output(self, name: str) -> str:
        """Add the pair behind a tensor; returns the name that its producer must use from now on."""
        source = self._named("tensor", f"{name}_raw") if self._is_shown_quantized(name) else name
        self._pair(source, name)
        return source

    def _pair(self, source: str, name: str) -> None:
        """Q and DQ from tensor `source`; what they give is called `_dequantized(name)`."""
        kind = self.plan.tensors[name]
        scale, zero = self._scale_and_zero(name, kind)
        quantized = self._named("tensor", f"{name}_quantized")
        self._node("QuantizeLinear", [source, scale, zero], quantized)
        self._node("DequantizeLinear", [quantized, scale, zero], self._dequantized(name))

    def _named(self, owner: str, wanted: str) -> str:
        """The name of what we make for a tensor, weight, ...: the wanted one, unless the graph has it already."""
        key = owner, wanted
        if key not in self.named:
            self.named[key] = self.names.free(wanted)
        return self.named[key]

    def _dequantized(self, name: str) -> str:
        return name if self._is_shown_quantized(name) else self._named("tensor", f"{name}_dequantized")

    def _is_shown_quantized(self, name: str) -> bool:
        """True if this is an output of the graph whose producer runs on integers to the end: it must keep its name."""
        at_output = name in self.graph.outputs and name != self.graph.input.name
        return at_output and self.plan.target.placement == "tensors"

    def _scale_and_zero(self, name: str, kind: ActivationType) -> tuple[str, str]:
        zero = np.array(kind.zero_point, np.dtype(kind.dtype))
        scale = self._constant(self._named("tensor", f"{name}_scale"), np.array(kind.scale, np.float32))
        return scale, self._constant(self._named("tensor", f"{name}_zero"), zero)

    def _rewire(self, index: int, node: onnx.NodeProto) -> None:
        activation = self.plan.tensors.get(node.input[0]) if node.input else None
        for position, name in enumerate(list(node.input)):
            edge = (index, position)
            if edge in self.plan.weights:
                self._quantize_weight(edge, node, activation)
            elif edge in self.plan.padded:
                node.input[position] = self._padded(name, self.plan.padded[edge])
            elif edge in self.plan.edges:
                node.input[position] = self._dequantized(name)

    def _padded(self, name: str, channels: int) -> str:
        """A tensor (N, C, H, W) padded with channels of zeros while it is quantized."""
        sizes, quantized, shown = (
            self._named("padded", f"{name}_padded_{each}") for each in ("sizes", "quantized", "dequantized")
        )
        if shown not in self.made:
            scale, zero = self._scale_and_zero(name, self.plan.tensors[name])
            pads = self._constant(sizes, np.array([0, 0, 0, 0, 0, channels, 0, 0], np.int64))
            self._node("Pad", [self._named("tensor", f"{name}_quantized"), pads, zero], quantized)
            self._node("DequantizeLinear", [quantized, scale, zero], shown)
        return shown

    def _quantize_weight(self, edge: Edge, node: onnx.NodeProto, activation: ActivationType | None) -> None:
        name, axis = node.input[edge[1]], self.plan.weights[edge]
        bias = self._bias(node) if self.plan.target.integer_bias else None
        input_scale = activation.scale if activation else 1.0
        extra_inputs = self.plan.padded.get((edge[0], 0), 0)
        levels = self.plan.target.weight_levels
        weight = quantize_weight(self._value(name), axis, bias=bias, input_scale=input_scale, levels=levels)
        weight = weight.padded(extra_inputs)
        stem = f"{name}_{edge[0]}"
        stored = self._stored(name, stem, weight)
        extra = {} if axis is None else {"axis": axis}
        values = stored.values
        if self.plan.target.weights != "int8":
            named = self._named("weight", f"{stem}_quantized")
            values = self._node("QuantizeLinear", [name, stored.scale, stored.zero], named, **extra)
        inputs = [values, stored.scale, stored.zero]
        node.input[edge[1]] = self._node(
            "DequantizeLinear", inputs, self._named("weight", f"{stem}_dequantized"), **extra
        )
        if bias is not None:
            self._quantize_bias(node, edge[0], bias, input_scale, weight.scale)

    def _stored(self, name: str, stem: str, weight: QuantizedWeight) -> StoredWeight:
        """Constants of a quantized weight, the same for all nodes that use it with one scale. Two uses may need two:
        a bias can ask for a larger one, and layers of another orientation have it along another axis."""
        key = name, weight.axis, weight.scale.tobytes(), weight.values.shape
        if key not in self.stored:
            scale = self._constant(self._named("weight", f"{stem}_scale"), weight.scale)
            zero = self._constant(self._named("weight", f"{stem}_zero"), np.zeros(weight.scale.shape, np.int8))
            in_file = self.plan.target.weights == "int8"
            values = self._constant(self._named("weight", f"{stem}_quantized"), weight.values) if in_file else ""
            self.stored[key] = StoredWeight(values, scale, zero)
        return self.stored[key]

    def _bias(self, node: onnx.NodeProto) -> Array | None:
        position = BIASED.get(node.op_type, 0)
        if not position or len(node.input) <= position or node.input[position] not in self.graph.weights:
            return None
        bias = self._value(node.input[position])
        return bias if bias.ndim == 1 else None

    def _quantize_bias(
        self, node: onnx.NodeProto, index: int, bias: Array, input_scale: float, weight_scale: Any
    ) -> None:
        position = BIASED[node.op_type]
        stem = f"{node.input[position]}_{index}"
        names = [self._named("bias", f"{stem}_{each}") for each in ("quantized", "scale", "dequantized")]
        scale = (np.float64(input_scale) * weight_scale.astype(np.float64)).astype(np.float32)
        quantized = self._constant(names[0], quantize_bias(bias, input_scale, weight_scale))
        inputs = [quantized, self._constant(names[1], scale)]
        extra = {"axis": 0} if scale.ndim else {}
        node.input[position] = self._node("DequantizeLinear", inputs, names[2], **extra)

    def _value(self, name: str) -> Array:
        array: Array = require("onnx", "edit models").numpy_helper.to_array(self.graph.weights[name])
        return array

    def _constant(self, name: str, value: Array) -> str:
        self.constants[name] = value
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        helper = require("onnx", "edit models").helper
        self.nodes.append(helper.make_node(op, inputs, [output], name=self.node_names.free(output), **attributes))
        self.made.add(output)
        return output

    def _store(self, model: onnx.ModelProto) -> None:
        helper = require("onnx", "edit models").numpy_helper
        used = {name for node in self.nodes for name in reads_of(node)} | self.graph.outputs
        # Where all readers take the padded form, nobody reads the plain one; onnxruntime would make it all the same.
        nodes = [node for node in self.nodes if used.intersection(node.output)]
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:], model.graph.node[:], model.graph.value_info[:]
        model.graph.initializer.extend(kept)
        model.graph.initializer.extend(helper.from_array(value, name) for name, value in self.constants.items())
        model.graph.node.extend(nodes)
