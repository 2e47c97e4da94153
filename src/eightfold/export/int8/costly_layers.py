"""Layers that cost an INT8 graph most: which part of an output's error comes from which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Arrays
from eightfold.calib.ranges import Ranges
from eightfold.export.int8.output_errors import LEAST_DB, GroupError, OutputError, channel_axis
from eightfold.export.int8.qdq import apply_qdq
from eightfold.export.int8.qdq_plan import FloatRules, plan_qdq
from eightfold.export.targets import Target
from eightfold.export.verify.sqnr import sqnr_db
from eightfold.export.verify.verify import runner
from eightfold.onnx_graph.graph import MOVING, ModelGraph
from eightfold.onnx_graph.layers import WEIGHTED, value_of
from eightfold.onnx_graph.operators import kind
from eightfold.values import Frozen

if TYPE_CHECKING:
    import onnx

PARTS = 4  # that a set of layers is cut into, to find the one with the layer
RMS_SHARE = 0.25  # of a threshold: what lies within one is about so large


class CostlyLayer(Frozen):
    """The layer that costs an output most.

    Args:
        output: the output, with the channels of a group of them.
        sqnr_db: of the output in INT8.
        layer: label of the node.
        alone_db: of the output where only that layer is INT8.
    """

    output: str
    sqnr_db: float
    layer: str
    alone_db: float

    def describe(self) -> str:
        return (
            f"{self.output} has {self.sqnr_db:.1f} dB; {self.layer!r} costs it most ({self.alone_db:.1f} dB alone), "
            f"leave it in float (keep_float=[{self.layer!r}], --keep-float {self.layer})"
        )


@dataclass(frozen=True)
class Search:
    """Finds costly layers of a graph that becomes INT8 for a target."""

    graph: ModelGraph
    ranges: Ranges
    target: Target
    labels: Sequence[str]

    def costliest(self, found: OutputError, inputs: Sequence[Arrays]) -> CostlyLayer | None:
        """The layer that costs the worst group of an output most; None where the output is good enough.

        Args:
            found: the errors of the output.
            inputs: runs on images.
        """
        least = found.least_db
        if least is None or least >= LEAST_DB or not self.labels:
            return None
        group = min(found.groups, key=lambda each: each.sqnr_db, default=None)
        group = group if group is not None and group.sqnr_db < (found.sqnr_db or 0.0) else None
        known = [_part(answer[found.output], group) for answer in _answers(self.graph.model, inputs)]

        def ratio(labels: Sequence[str]) -> float:
            rules = FloatRules(only=frozenset(labels))
            model = apply_qdq(self.graph, plan_qdq(self.graph, self.ranges, self.target, rules))
            seen = [_part(answer[found.output], group) for answer in _answers(model, inputs)]
            return _sqnr(known, seen)

        layer, alone = _narrowed(list(self.labels), ratio)
        where = found.output if group is None else f"{found.output}, channels {group.first} to {group.last},"
        return CostlyLayer(output=where, sqnr_db=least, layer=layer, alone_db=alone)


def _narrowed(labels: list[str], ratio: Callable[[Sequence[str]], float]) -> tuple[str, float]:
    """The worst of some layers, by halving: each time the part with the lowest ratio is kept."""
    worst = 0.0
    while True:
        size = -(-len(labels) // PARTS)
        parts = [labels[start : start + size] for start in range(0, len(labels), size)]
        ratios = [ratio(part) for part in parts]
        worst, labels = min(ratios), parts[int(np.argmin(ratios))]
        if len(labels) == 1:
            return labels[0], worst


def _answers(model: onnx.ModelProto, inputs: Sequence[Arrays]) -> list[Arrays]:
    run = runner(model)
    return [run(each) for each in inputs]


def _part(array: Any, group: GroupError | None) -> Any:
    axis = channel_axis(array.shape)
    if group is None or axis is None:
        return array
    return np.take(array, np.arange(group.first, group.last + 1), axis=axis)


def _sqnr(known: Sequence[Any], seen: Sequence[Any]) -> float:
    pairs = [
        (a.astype(np.float64), b.astype(np.float64)) for a, b in zip(known, seen, strict=True) if a.shape == b.shape
    ]
    return sqnr_db(sum(float((a**2).sum()) for a, _ in pairs), sum(float(((a - b) ** 2).sum()) for a, b in pairs))


def possible_sizes(graph: ModelGraph, ranges: Ranges) -> dict[str, float]:
    """Root mean square that the values of each output could have: that of what its last operator computes with. An
    answer may be small because large numbers cancel out, and its INT8 form is off by a share of those."""
    sizes = {}
    for name in sorted(graph.outputs):
        node = graph.producer.get(name)
        while node is not None and kind(node) in MOVING:
            node = graph.producer.get(node.input[0])
        if node is not None:
            sizes[name] = RMS_SHARE * _gain(graph, node) * _largest_threshold(graph, ranges, node)
    return sizes


def _largest_threshold(graph: ModelGraph, ranges: Ranges, node: onnx.NodeProto) -> float:
    firsts = (graph.alias.get(name, name) for name in node.input)
    return max((ranges.tensors[name].threshold for name in firsts if name in ranges.tensors), default=0.0)


def _gain(graph: ModelGraph, node: onnx.NodeProto) -> float:
    """Growth of a layer's result against its input, for inputs that do not know of each other."""
    if kind(node) not in WEIGHTED or node.input[1] not in graph.weights:
        return 1.0
    weight = value_of(graph.weights[node.input[1]]).astype(np.float64)
    outputs = max(weight.shape[0] if kind(node) == "Conv" else weight.shape[-1], 1)
    return float(np.sqrt(np.square(weight).sum() / outputs))
