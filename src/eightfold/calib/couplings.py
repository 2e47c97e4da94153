"""Finds layers whose channels are coupled: the layers that make a tensor may be scaled if the layers that read it are
scaled back. Every operator in between must pass a positive factor per channel through.

A coupling is a pair of layers in the simplest case. A residual addition joins all layers that make its operands with
all that read its result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import Layer, label, value_of
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Flatten", "Reshape"}
)
FAR_FROM = 0.99  # an activation that stays below this share of a clip's bound is not clipped


@dataclass
class Coupling:
    """Layers whose channels share one factor each.

    Args:
        makers: layers that make the channels.
        readers: layers that read them.
        tensors: everything between them.
        clips: nodes that clip nothing that was seen, so that a Relu does the same.
        obstacle: why the channels may not be scaled; empty where they may.
    """

    makers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    clips: list[onnx.NodeProto] = field(default_factory=list)
    obstacle: str = ""


@dataclass(frozen=True)
class Couplings:
    """Finds all couplings of a graph.

    Args:
        layers: those that may be scaled, by the name of their output.
        highest: the largest value seen, by tensor; empty where no images were run.
    """

    graph: ModelGraph
    layers: Mapping[str, Layer]
    highest: Mapping[str, float]

    def all(self) -> list[Coupling]:
        """One coupling for every set of tensors that layers make, in the graph's order."""
        found, done = [], set[str]()
        for name in self.layers:
            if name not in done:
                coupling = self._around(name)
                done.update(coupling.tensors)
                found.append(coupling)
        return found

    def _around(self, name: str) -> Coupling:
        coupling, waiting = Coupling(), [name]
        while waiting:
            tensor = waiting.pop(0)
            if tensor in coupling.tensors:
                continue
            coupling.tensors.append(tensor)
            waiting += self._behind(tensor, coupling) + self._before(tensor, coupling)
        widths = {self._width(tensor) for tensor in coupling.tensors}
        if len(widths) > 1:
            _block(coupling, f"its channels change their number: {sorted(widths)}")
        return coupling

    def _width(self, tensor: str) -> int:
        shape = self.graph.types.get(tensor, (0, ()))[1]
        return shape[1] if len(shape) > 1 else 0

    def _before(self, tensor: str, coupling: Coupling) -> list[str]:
        """The tensors that a tensor's values come from."""
        node = self.graph.producer.get(tensor)
        if node is None:
            return _block(coupling, "it is the input of the graph")
        if tensor in self.layers:
            coupling.makers.append(self.layers[tensor])
            return []
        return self._through(node, coupling)

    def _behind(self, tensor: str, coupling: Coupling) -> list[str]:
        """The tensors that a tensor's values go to."""
        if tensor in self.graph.outputs:
            return _block(coupling, "it is an output of the graph")
        found = []
        for node in self.graph.readers.get(tensor, []):
            layer = self.layers.get(node.output[0])
            if layer is None:
                found += self._through(node, coupling)
            elif node.input[0] == tensor:
                coupling.readers.append(layer)
        return found

    def _through(self, node: onnx.NodeProto, coupling: Coupling) -> list[str]:
        """The tensors on either side of an operator that hands factors through."""
        if kind(node) in HOMOGENEOUS:
            return [node.input[0], node.output[0]]
        if kind(node) == "Clip":
            return self._through_clip(node, coupling)
        if kind(node) == "Add" and not any(name in self.graph.weights for name in node.input):
            return [*node.input, node.output[0]]
        return _block(coupling, f"{label(node)} ({node.op_type}) does not hand factors through")

    def _through_clip(self, node: onnx.NodeProto, coupling: Coupling) -> list[str]:
        low, high = (self._bound(node, position) for position in (1, 2))
        if low != 0:
            return _block(coupling, "its clip does not start at 0")
        seen = self.highest.get(self.graph.alias.get(node.output[0], node.output[0]))
        if seen is None:
            return _block(coupling, f"its clip at {high:g}: no images tell whether that is reached")
        if seen > FAR_FROM * high:
            return _block(coupling, f"its clip at {high:g} is reached")
        if node not in coupling.clips:
            coupling.clips.append(node)
        return [node.input[0], node.output[0]]

    def _bound(self, node: onnx.NodeProto, position: int) -> float:
        name = node.input[position] if len(node.input) > position else ""
        if not name:
            return -float("inf") if position == 1 else float("inf")
        maker = self.graph.producer.get(name)
        if maker is not None and kind(maker) == "Constant":
            return float(value_of(maker.attribute[0].t))
        return float(value_of(self.graph.weights[name])) if name in self.graph.weights else float("nan")


def _block(coupling: Coupling, reason: str) -> list[str]:
    coupling.obstacle = coupling.obstacle or reason
    return []
