"""Cross-layer equalization: rescale the channels between layers so that one 8-bit scale fits all of them.

`relu(s * x) = s * relu(x)` for s > 0, so what one layer makes s times smaller the next can make s times larger without
changing the network (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.1). Layers that a residual addition joins are scaled together. The graph stays FP32; calibrate it after this.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eightfold.calib.couplings import Coupling, Couplings
from eightfold.calib.ranges import TensorRange
from eightfold.onnx_graph.fold_norms import norm_into_conv
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import Layer, label, layers_of, set_value, value_of
from eightfold.onnx_graph.names import reads_of
from eightfold.values import Frozen

if TYPE_CHECKING:
    import onnx

EQUALIZED = frozenset({"Conv", "Gemm"})
MAX_ROUNDS = 20
SETTLED = 1e-3  # rounds end when no factor is further from 1 than this
MAX_FACTOR = 1e4  # bounds how much a channel that is nearly dead is scaled up

Floats = npt.NDArray[np.float64]
ChannelRanges = Mapping[str, tuple[TensorRange, ...]]


class EqualizedGroup(Frozen):
    """Layers whose channels were scaled together.

    Args:
        made_by, read_by: the layers on either side.
        spread_before, spread_after: largest over smallest channel range between them.
    """

    made_by: tuple[str, ...]
    read_by: tuple[str, ...]
    spread_before: float
    spread_after: float


class Equalization(Frozen):
    """The changes that equalization made to a network.

    Args:
        groups: what was rescaled.
        skipped: layer -> why its channels were left alone.
        rounds: how often all groups were visited.
        clips: nodes that became a Relu, because nothing that was seen reaches their bound.
    """

    groups: tuple[EqualizedGroup, ...]
    skipped: dict[str, str]
    rounds: int
    clips: tuple[str, ...] = ()

    def describe(self) -> str:
        """Text for a person: groups, rounds, and the worst spread."""
        worst = max(self.groups, key=lambda group: group.spread_before, default=None)
        lines = [f"{len(self.groups)} groups of layers equalized in {self.rounds} rounds"]
        if worst:
            names = f"{', '.join(worst.made_by)} -> {', '.join(worst.read_by)}"
            lines[0] += (
                f"; the worst: channel ranges differed by {worst.spread_before:.3g} times, "
                f"now by {worst.spread_after:.3g} ({names})"
            )
        if self.clips:
            lines.append(f"  {len(self.clips)} clips became Relu: no image reaches their bound")
        reasons = {
            reason: [name for name, why in self.skipped.items() if why == reason] for reason in self.skipped.values()
        }
        lines += [f"  left alone, {reason}: {', '.join(names)}" for reason, names in reasons.items()]
        return "\n".join(lines)


def without_batch_norms(graph: ModelGraph) -> ModelGraph:
    """A copy with its batch norms folded into their convolutions, which is what can be equalized."""
    model = copy.deepcopy(graph.model)
    norm_into_conv(model.graph)
    return ModelGraph(model, graph.name)


def changed_weights(graph: ModelGraph, equal: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The weights of a graph that are others in its equalized form, by name."""
    found = {tensor.name: tensor for tensor in equal.graph.initializer}
    return {name: found[name] for name, tensor in graph.weights.items() if tensor != found.get(name, tensor)}


def with_weights(graph: ModelGraph, weights: Mapping[str, onnx.TensorProto], clips: Collection[str]) -> onnx.ModelProto:
    """The equalized form of the same network at another batch or image size.

    Args:
        graph: without batch norms.
        weights: what `changed_weights` says of the first one.
        clips: nodes that became a Relu there.
    """
    model = copy.deepcopy(graph.model)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(weights.get(tensor.name, tensor))
    _unclip_(model, clips)
    return model


def _unclip_(model: onnx.ModelProto, clips: Collection[str]) -> None:
    """Make Relu nodes of these clips, and drop bounds without readers."""
    bounds = set()
    for node in model.graph.node:
        if node.op_type == "Clip" and label(node) in clips:
            bounds.update(node.input[1:])
            node.op_type = "Relu"
            del node.input[1:], node.attribute[:]
    bounds -= {name for node in model.graph.node for name in reads_of(node)}
    bounds -= {value.name for value in model.graph.output}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in bounds]:
        model.graph.initializer.remove(tensor)
    for node in [node for node in model.graph.node if bounds.intersection(node.output)]:
        model.graph.node.remove(node)


def equalized(graph: ModelGraph, found: ChannelRanges | None = None) -> tuple[onnx.ModelProto, Equalization]:
    """An equalized copy of the model of a graph without batch norms. `found`: the range of each channel, by tensor."""
    work, found = ModelGraph(copy.deepcopy(graph.model), graph.name), found or {}
    layers = [layer for layer in layers_of(work) if layer.node.op_type in EQUALIZED]
    own = {layer.node.output[0]: layer for layer in layers if _owns_weights(work, layer)}
    highest = {name: max(entry.max for entry in entries) for name, entries in found.items()}
    couplings = Couplings(work, own, highest).all()
    sides = {name: _side(work, layer) for name, layer in own.items()}
    groups = [_group(work, coupling, sides, found) for coupling in couplings if not _reason(coupling)]
    before = [group.spread() for group in groups]
    rounds = _balance(groups)
    for group in groups:
        group.store(work)
    clips = tuple(label(node) for group in groups for node in group.coupling.clips)
    _unclip_(work.model, clips)
    report = Equalization(
        groups=tuple(group.described(spread) for group, spread in zip(groups, before, strict=True)),
        skipped={layer.name: why for each in couplings if (why := _reason(each)) for layer in each.makers},
        rounds=rounds,
        clips=clips,
    )
    return work.model, report


def _reason(coupling: Coupling) -> str:
    """The reason for leaving a coupling alone; empty if it is scaled."""
    return coupling.obstacle or ("" if coupling.readers else "no layer reads its channels")


@dataclass(eq=False)
class _Side:
    """A layer with its weights in float64 while they change. Layers between two others take part in two pairs."""

    layer: Layer
    weight: Floats  # (groups, outputs, inputs, positions)
    bias: Floats | None

    def output_reach(self) -> Floats:
        return np.asarray(np.abs(self.weight).max(axis=(2, 3)).reshape(-1), np.float64)

    def input_reach(self) -> Floats:
        return np.asarray(np.abs(self.weight).max(axis=(1, 3)).reshape(-1), np.float64)

    def scale_outputs(self, factor: Floats) -> None:
        self.weight = self.weight * factor.reshape(*self.weight.shape[:2], 1, 1)
        if self.bias is not None:
            self.bias = self.bias * factor

    def scale_inputs(self, factor: Floats) -> None:
        groups, _, inputs, _ = self.weight.shape
        self.weight = self.weight * factor.reshape(groups, 1, inputs, 1)

    def store(self, graph: ModelGraph) -> None:
        set_value(graph.weights[self.layer.weight], self.layer.unview(self.weight))
        if self.bias is not None:
            set_value(graph.weights[self.layer.bias], self.bias)


@dataclass(eq=False)
class _Group:
    """A coupling at work. `seen` is what its channels' activations reach; None where weights are looked at."""

    coupling: Coupling
    makers: list[_Side]
    readers: list[_Side]
    seen: Floats | None

    def reach(self) -> Floats:
        return _most([side.output_reach() for side in self.makers]) if self.seen is None else self.seen

    def spread(self) -> float:
        reach = self.reach()
        return float(reach.max() / reach[reach > 0].min()) if (reach > 0).any() else 1.0

    def balance(self) -> float:
        """Make both sides reach as far, per channel; returns the largest factor, as a distance from 1."""
        made, read = self.reach(), _most([side.input_reach() for side in self.readers])
        alive = (made > 0) & (read > 0)
        factor = np.sqrt(np.where(alive, made, 1.0) / np.where(alive, read, 1.0))
        factor = np.clip(factor, 1 / MAX_FACTOR, MAX_FACTOR)
        for side in self.makers:
            side.scale_outputs(1 / factor)
        for side in self.readers:
            side.scale_inputs(factor)
        if self.seen is not None:
            self.seen = self.seen / factor
        return float(np.abs(np.log(factor)).max())

    def store(self, graph: ModelGraph) -> None:
        for side in [*self.makers, *self.readers]:
            side.store(graph)

    def described(self, spread_before: float) -> EqualizedGroup:
        made_by, read_by = (tuple(side.layer.name for side in sides) for sides in (self.makers, self.readers))
        return EqualizedGroup(made_by=made_by, read_by=read_by, spread_before=spread_before, spread_after=self.spread())


def _most(reaches: list[Floats]) -> Floats:
    return np.asarray(np.max(np.stack(reaches), axis=0), np.float64)


def _balance(groups: list[_Group]) -> int:
    for done in range(MAX_ROUNDS):
        if max((group.balance() for group in groups), default=0.0) < SETTLED:
            return done + 1
    return MAX_ROUNDS


def _group(graph: ModelGraph, coupling: Coupling, sides: Mapping[str, _Side], found: ChannelRanges) -> _Group:
    makers, readers = (
        [sides[layer.node.output[0]] for layer in layers] for layers in (coupling.makers, coupling.readers)
    )
    observed = dict.fromkeys(graph.alias.get(name, name) for name in coupling.tensors)
    seen = [np.array([max(-e.low, e.high, 0.0) for e in found[name]]) for name in observed if name in found]
    return _Group(coupling, makers, readers, _most(seen) if seen else None)


def _side(graph: ModelGraph, layer: Layer) -> _Side:
    weight = layer.view(value_of(graph.weights[layer.weight]).astype(np.float64))
    bias = value_of(graph.weights[layer.bias]).astype(np.float64) if layer.bias else None
    return _Side(layer, weight, bias)


def _owns_weights(graph: ModelGraph, layer: Layer) -> bool:
    """True if no other node reads the layer's constants."""
    constants = [name for name in (layer.weight, layer.bias) if name]
    return all(name in graph.weights and len(graph.readers[name]) == 1 for name in constants)
