"""The function of each value through which all readers see a tensor, such as SiLU.

A range should lose little of what is read. Far below zero SiLU and sigmoid are flat: steps spent there are lost, and a
large error there is none. So the method "mse" measures errors behind that function. The function is not recognized by
name: the nodes that compute it are cut out of the graph and run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eightfold.arrays import Array
from eightfold.extras import require
from eightfold.onnx_graph.graph import MOVING, ModelGraph
from eightfold.onnx_graph.graph_index import attribute
from eightfold.onnx_graph.layers import WEIGHTED, value_of
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float64]
Function = Callable[[Floats], Floats]

OF_ONE_VALUE = frozenset(
    {"Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softplus"}
    | {"Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"}
)
OF_SEVERAL = frozenset({"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"})
MOST_NODES = 16


class Readers:
    """Tells how the tensors of a graph are read."""

    def __init__(self, graph: ModelGraph) -> None:
        self.graph = graph
        self._places = {node.output[0]: place for place, node in enumerate(graph.model.graph.node) if node.output}

    def function(self, name: str) -> Function | None:
        """The function of each value through which alone a tensor is read; None where there is no such."""
        part = _Part(self, name)
        nodes = part.nodes()
        if not nodes:
            return None
        return _compiled(_model(part, nodes).SerializeToString(deterministic=True))

    def places(self, name: str) -> list[int]:
        """Places in the graph of the nodes that read a tensor."""
        return [self._places[node.output[0]] for node in self.graph.readers.get(name, [])]

    def end_in_output(self, name: str) -> bool:
        """True if a tensor, or part of it, becomes an output of the network without a layer with weights between."""
        seen, waiting = {name}, [name]
        while waiting:
            tensor = waiting.pop()
            if tensor in self.graph.outputs:
                return True
            for node in self.graph.readers.get(tensor, []):
                if kind(node) not in WEIGHTED:
                    waiting += [each for each in node.output if each not in seen]
                    seen.update(node.output)
        return False


@dataclass(eq=False)
class _Part:
    """The nodes between a tensor and another through which alone it is read."""

    readers: Readers
    start: str
    constants: dict[str, Array] = field(default_factory=dict)
    moved: bool = False

    @property
    def graph(self) -> ModelGraph:
        return self.readers.graph

    def nodes(self) -> list[onnx.NodeProto]:
        """In the order of the graph, as many as can be; none where there is no such tensor."""
        inside = {self.start}
        taken: dict[int, onnx.NodeProto] = {}
        found: list[onnx.NodeProto] = []
        waiting = sorted(self.readers.places(self.start))
        while waiting and len(taken) < MOST_NODES:
            place = heapq.heappop(waiting)
            if place in taken:
                continue
            node = self.graph.model.graph.node[place]
            if not self._is_of_one_value(node, inside):
                break
            taken[place] = node
            last = node.output[0]
            if all(self._is_hidden(tensor, taken) for tensor in inside):
                found = list(taken.values())
            inside.add(last)
            for each in self.readers.places(last):
                heapq.heappush(waiting, each)
        return [] if all(kind(node) in MOVING for node in found) else found

    def _is_hidden(self, tensor: str, taken: Collection[int]) -> bool:
        visible = tensor in self.graph.outputs or tensor in self.graph.captured
        return not visible and all(place in taken for place in self.readers.places(tensor))

    def _is_of_one_value(self, node: onnx.NodeProto, inside: Collection[str]) -> bool:
        operator, inputs = kind(node), [name for name in node.input if name]
        if operator in MOVING:
            self.moved = True
            return inputs[0] in inside
        if operator not in OF_ONE_VALUE | OF_SEVERAL or len(node.output) != 1:
            return False
        for name in inputs:
            if name not in inside:
                constant = self._constant(name)
                if constant is None or constant.size != 1:
                    return False
                self.constants[name] = constant.reshape(())
        # What was moved may meet other values.
        return not self.moved or sum(name in inside for name in inputs) == 1

    def _constant(self, name: str) -> Array | None:
        node = self.graph.producer.get(name)
        if node is None or kind(node) != "Constant":
            return self.graph.array(name)
        tensor = attribute(node, "value", None)
        return None if tensor is None else value_of(tensor)


def _model(part: _Part, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """The function as a model of its own, (N,) to (N,), with the same names wherever it occurs."""
    from onnx import TensorProto, helper, numpy_helper

    names = {part.start: "x"} | {node.output[0]: f"y{number}" for number, node in enumerate(nodes)}
    constants: dict[str, onnx.TensorProto] = {}
    copies: list[onnx.NodeProto] = []
    for node in nodes:
        inputs = [name for name in node.input if name in names or name in part.constants]
        if kind(node) in MOVING:
            copies.append(helper.make_node("Identity", [names[node.input[0]]], [names[node.output[0]]]))
            continue
        for name in inputs:
            if name not in names:
                names[name] = f"c{len(constants)}"
                constants[name] = numpy_helper.from_array(part.constants[name], names[name])
        copy = helper.make_node(node.op_type, [names.get(name, "") for name in node.input], [names[node.output[0]]])
        copy.attribute.extend(node.attribute)
        copies.append(copy)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", copies[-1].output[0])]
    model = helper.make_model(
        helper.make_graph(copies, "function", ends[:1], ends[1:], list(constants.values())),
        opset_imports=part.graph.model.opset_import,
    )
    model.ir_version = part.graph.model.ir_version
    return model


@lru_cache(maxsize=256)
def _compiled(model: bytes) -> Function:
    ort = require("onnxruntime", "run models")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(values: Floats) -> Floats:
        found: Floats = session.run(None, {"x": values.astype(np.float32)})[0].astype(np.float64)
        return found

    return run
