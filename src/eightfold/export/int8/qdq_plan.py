"""Deciding what becomes INT8: which tensors get a scale, which inputs read the quantized form, which weights are
quantized along which axis, and why the rest stays float. `export/int8/qdq.py` carries the plan out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from eightfold.calib.ranges import Ranges
from eightfold.errors import UsageError
from eightfold.export.int8.int8 import ActivationType, activation_type
from eightfold.export.targets import Target
from eightfold.onnx_graph.graph import FUSED, MOVING, ModelGraph
from eightfold.onnx_graph.graph_index import attribute
from eightfold.onnx_graph.layers import WEIGHTED, Layer, label
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# Have an integer form that gives float: nothing is gained by leaving the last of them in float.
FLOAT_RESULT = frozenset({"Gemm", "MatMul"})
# What decodes layers' results on their way out of the graph: boxes from offsets and grids, scores from logits.
DECODING = (
    MOVING
    | {"Sigmoid", "Softmax", "Tanh", "Exp", "Sqrt", "Pow", "Clip", "Relu", "Resize"}
    | {"Concat", "Split", "Slice", "Gather", "Add", "Sub", "Mul", "Div"}
)
# Hand quantized values on as they are, or means of them: inputs and outputs share one scale.
SAME_SCALE = MOVING | {"MaxPool", "Split", "Slice", "Resize", "Gather"}
COARSER = 1.6  # how much wider a tensor's step may become for it to be concatenated without rounding: 2/3 of a bit
Edge = tuple[int, int]  # node index, input index


@dataclass
class QdqPlan:
    """The changes to make to a graph.

    Args:
        tensors: activation -> its 8-bit type.
        edges: the inputs that read the quantized form.
        weights: constant input -> axis of its output channels; None for one scale.
        padded: input of a convolution -> channels of zeros to put behind its own.
        kept_float: label of a node that could have been quantized -> why it was not.
        quantized: labels of the nodes that run on integers.
    """

    target: Target
    tensors: dict[str, ActivationType] = field(default_factory=dict)
    edges: set[Edge] = field(default_factory=set)
    weights: dict[Edge, int | None] = field(default_factory=dict)
    padded: dict[Edge, int] = field(default_factory=dict)
    kept_float: dict[str, str] = field(default_factory=dict)
    quantized: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FloatRules:
    """Nodes to keep in float although the target could run them on integers.

    Args:
        keep: labels of nodes.
        only: where given, labels of the only nodes to quantize.
        float_outputs: also the layers whose result leaves the graph, dense ones excepted.
    """

    keep: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    float_outputs: bool = False


def plan_qdq(graph: ModelGraph, ranges: Ranges, target: Target, rules: FloatRules | None = None) -> QdqPlan:
    """Decide what becomes INT8 for `target`.

    Raises:
        UsageError: `rules` name a node that is not there.
    """
    rules = rules or FloatRules()
    unknown = (rules.keep | (rules.only or frozenset())) - {label(node) for node in graph.model.graph.node}
    if unknown:
        raise UsageError(f"no node is called {min(unknown)!r}", allowed="names of nodes of the graph")
    plan = QdqPlan(target)
    _Planner(graph, ranges, plan, rules).run()
    return plan


@dataclass(frozen=True)
class _Planner:
    graph: ModelGraph
    ranges: Ranges
    plan: QdqPlan
    rules: FloatRules

    @cached_property
    def exposed(self) -> frozenset[str]:
        """The outputs of the graph, and what becomes one by mere decoding.

        Decoding stays float: it puts boxes in pixels beside scores in [0, 1], and one 8-bit scale would round the
        scores to nothing. The layers in front of it each have a scale of their own.
        """
        found = set(self.graph.outputs)
        for node in reversed(self.graph.model.graph.node):
            if node.op_type in DECODING and found.intersection(node.output):
                found.update(node.input)
        return frozenset(found)

    def run(self) -> None:
        for index, node in enumerate(self.graph.model.graph.node):
            if kind(node) not in self.plan.target.operators:
                continue
            reason = self._obstacle(node)
            if reason:
                self.plan.kept_float[label(node)] = reason
                continue
            self.plan.quantized.append(label(node))
            self._plan_weight(index, node)
            self._plan_activations(index, node)
        if self.plan.target.placement == "tensors":
            self._pass_scales_on()
            self._share_scales()
            self._read_everywhere()

    def _obstacle(self, node: onnx.NodeProto) -> str:
        """The reason that forbids quantizing a node; empty if there is none."""
        if label(node) in self.rules.keep or (self.rules.only is not None and label(node) not in self.rules.only):
            return "asked to stay float"
        if self._stays_exposed(node):
            return "its result leaves the graph"
        activations = list(self._activation_inputs(node))
        if not activations:
            return "reads no activation"
        if node.op_type in WEIGHTED and (not self._is_constant(node.input[1]) or attribute(node, "alpha", 1.0) != 1.0):
            return "its weight is not a constant"
        if node.op_type not in WEIGHTED and len(activations) != len(node.input):
            return "one of its inputs is a constant"
        if self.plan.target.placement == "inputs" and not self._fusable_inputs(node, activations):
            return "neither of its inputs is made by a layer that it could be fused into"
        missing = [name for _, name in activations if self._range_of(name) is None]
        return f"no range for {missing[0]!r}" if missing else ""

    def _is_constant(self, name: str) -> bool:
        return name in self.graph.weights

    def _activation_inputs(self, node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
        for position, name in enumerate(node.input):
            if name and not self._is_constant(name) and self.graph.is_float(name):
                yield position, name

    def _range_of(self, name: str) -> ActivationType | None:
        found = self.ranges.tensors.get(name)
        if found is None:
            return None
        return activation_type(found, dtype=self.plan.target.activation, symmetric=self.plan.target.symmetric)

    def _plan_weight(self, index: int, node: onnx.NodeProto) -> None:
        if node.op_type in WEIGHTED:
            layer = Layer(node, tuple(self.graph.weights[node.input[1]].dims))
            self.plan.weights[index, 1] = layer.output_axis if self.plan.target.per_channel else None
            missing = self.plan.target.least_channels - layer.shape[1]
            if missing > 0 and self._is_paddable(layer):
                self.plan.padded[index, 0] = missing

    def _is_paddable(self, layer: Layer) -> bool:
        """Behind a Transpose, onnxruntime pads the innermost axis, which takes longer than the convolution gains."""
        maker = self.graph.producer.get(layer.node.input[0])
        plain = layer.node.op_type == "Conv" and layer.groups == 1 and len(layer.shape) == 4
        return plain and (maker is None or kind(maker) != "Transpose")

    def _plan_activations(self, index: int, node: onnx.NodeProto) -> None:
        inputs = list(self._activation_inputs(node))
        if self.plan.target.placement == "inputs":
            inputs = self._fusable_inputs(node, inputs)
            self.plan.edges.update((index, position) for position, _ in inputs)
        for _, name in inputs:
            self._quantize(name)
        if self.plan.target.placement == "tensors" and self._has_integer_result(node):
            self._quantize(self._result(node))

    def _stays_exposed(self, node: onnx.NodeProto) -> bool:
        if self._result(node) not in self.exposed or node.op_type in FLOAT_RESULT:
            return False
        return node.op_type not in WEIGHTED or self.rules.float_outputs

    def _has_integer_result(self, node: onnx.NodeProto) -> bool:
        return self._result(node) not in self.exposed or node.op_type not in FLOAT_RESULT

    def _quantize(self, name: str) -> None:
        found = self._range_of(name)
        if found is not None:
            self.plan.tensors[name] = found

    def _result(self, node: onnx.NodeProto) -> str:
        """The tensor that a node's integers end up in: behind the activation that is fused into it."""
        name = str(node.output[0])
        if self.graph.is_fused_away(name) and self.graph.readers[name][0].op_type in FUSED:
            return str(self.graph.readers[name][0].output[0])
        return name

    def _fusable_inputs(self, node: onnx.NodeProto, inputs: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """All inputs, except the one of an addition that is fused into the convolution that makes it."""
        if node.op_type != "Add":
            return inputs
        fused = [position for position, name in inputs if self._made_by_convolution(name)]
        return [entry for entry in inputs if entry[0] != fused[-1]] if fused else []

    def _made_by_convolution(self, name: str) -> bool:
        maker = self.graph.producer.get(name)
        return maker is not None and kind(maker) in WEIGHTED and len(self.graph.readers[name]) == 1

    def _pass_scales_on(self) -> None:
        for node in self.graph.model.graph.node:
            if kind(node) in SAME_SCALE and node.input[0] in self.plan.tensors:
                for name in node.output:
                    if name not in self.exposed:
                        self.plan.tensors[name] = self.plan.tensors[node.input[0]]

    def _share_scales(self) -> None:
        """Give what is concatenated the scale of the whole, so that it is copied and not rounded once more.

        What nobody else reads loses nothing by it. Another reader sees a step that is at most COARSER times as wide.
        """
        for node in reversed(self.graph.model.graph.node):
            if kind(node) == "Concat" and node.output[0] in self.plan.tensors:
                whole = self.plan.tensors[node.output[0]]
                for name in node.input:
                    same = self._same_scale(name)
                    if self._may_coarsen(same, node, whole):
                        self.plan.tensors.update(dict.fromkeys(same, whole))

    def _same_scale(self, name: str) -> set[str]:
        """All tensors that have the scale of this one, because they hold its values."""
        found, waiting = {name}, [name]
        while waiting:
            current = waiting.pop()
            maker = self.graph.producer.get(current)
            around = [node for node in self.graph.readers.get(current, []) if node.input[0] == current]
            for node in [*around, *([maker] if maker is not None else [])]:
                near = {node.input[0], *node.output} if kind(node) in SAME_SCALE else set()
                new = (near & self.plan.tensors.keys()) - found
                found |= new
                waiting += new
        return found

    def _may_coarsen(self, same: set[str], concat: onnx.NodeProto, whole: ActivationType) -> bool:
        if not same <= self.plan.tensors.keys() or same & {self.graph.input.name}:
            return False
        readers = [node for name in same for node in self.graph.readers.get(name, [])]
        alone = all(node is concat or kind(node) in SAME_SCALE for node in readers)
        return alone or all(whole.scale <= COARSER * self.plan.tensors[name].scale for name in same)

    def _read_everywhere(self) -> None:
        for index, node in enumerate(self.graph.model.graph.node):
            self.plan.edges.update((index, i) for i, name in enumerate(node.input) if name in self.plan.tensors)
