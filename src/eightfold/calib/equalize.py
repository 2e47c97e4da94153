"""Cross-layer equalization: rescale the channels between two layers so that one 8-bit scale fits all of them.

`relu(s * x) = s * relu(x)` for s > 0, so what one layer makes s times smaller the next can make s times larger without
changing the network (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.1). The graph stays FP32; calibrate it after this.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eightfold.calib.calibrate import CalibrationOptions, channel_reach
from eightfold.calib.graph import Graph, read_graph
from eightfold.calib.layers import Layer, layers_of, set_value, value_of
from eightfold.calib.preprocess import Preprocess
from eightfold.files import PathLike, write_bytes
from eightfold.values import Frozen

if TYPE_CHECKING:
    import onnx

# Hand a positive factor per channel through. Clip to [0, 6] does not.
HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Flatten", "Reshape"}
)
EQUALIZED = frozenset({"Conv", "Gemm"})
MAX_ROUNDS = 20
SETTLED = 1e-3  # rounds end when no factor is further from 1 than this
MAX_FACTOR = 1e4  # bounds how much a channel that is nearly dead is scaled up

Floats = npt.NDArray[np.float64]


class EqualizeReport(Frozen):
    """What `equalize` did.

    Args:
        pairs: (first, second) layers between which channels were rescaled.
        rounds: how often all pairs were visited.
        spread_before, spread_after: largest over smallest channel range between two layers, of the worst pair.
    """

    pairs: tuple[tuple[str, str], ...]
    rounds: int
    spread_before: float
    spread_after: float

    def describe(self) -> str:
        return (
            f"{len(self.pairs)} pairs of layers equalized in {self.rounds} rounds: "
            f"channel ranges differed by {self.spread_before:.3g} times at most, now by {self.spread_after:.3g}"
        )


def equalize(
    onnx_path: PathLike, output: PathLike, *, images: Any = None, preprocess: Preprocess | None = None
) -> tuple[Path, EqualizeReport]:
    """Write a graph that computes the same, with the channel ranges of consecutive layers balanced.

    Args:
        onnx_path: an FP32 graph.
        output: where the equalized graph goes; may be the same file.
        images: as for `calibrate`. With them a channel's range is what its activations reach; without, what its
            weights reach, as in the paper.
        preprocess: how an image becomes a row of the model's input.

    Returns:
        The output's path, and what was done.

    Raises:
        CalibrationError, ImageError: as `calibrate`.
    """
    graph = read_graph(onnx_path)
    reach = channel_reach(graph, images, preprocess, CalibrationOptions("minmax")) if images is not None else {}
    model, report = equalized(graph, reach)
    write_bytes(output, model.SerializeToString(deterministic=True))
    return Path(output), report


def equalized(graph: Graph, reach: dict[str, Floats] | None = None) -> tuple[onnx.ModelProto, EqualizeReport]:
    """An equalized copy of the graph's model. `reach`: largest magnitude of each channel, by tensor."""
    work = Graph(copy.deepcopy(graph.model), graph.name)
    pairs = _pairs(work, reach or {})
    before = max((pair.spread() for pair in pairs), default=1.0)
    rounds = _balance(pairs)
    names = tuple((pair.first.layer.name, pair.second.layer.name) for pair in pairs)
    after = max((pair.spread() for pair in pairs), default=1.0)
    for side in {id(side): side for pair in pairs for side in (pair.first, pair.second)}.values():
        side.store(work)
    return work.model, EqualizeReport(pairs=names, rounds=rounds, spread_before=before, spread_after=after)


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

    def store(self, graph: Graph) -> None:
        set_value(graph.initializers[self.layer.weight], self.layer.unview(self.weight))
        if self.bias is not None:
            set_value(graph.initializers[self.layer.bias], self.bias)


@dataclass(eq=False)
class _Pair:
    """What `first` makes is read by `second` alone, channel by channel. `seen` is what its activations reach."""

    first: _Side
    second: _Side
    seen: Floats | None

    def reach(self) -> Floats:
        return self.first.output_reach() if self.seen is None else self.seen

    def spread(self) -> float:
        reach = self.reach()
        return float(reach.max() / reach[reach > 0].min()) if (reach > 0).any() else 1.0

    def balance(self) -> float:
        """Make both sides reach as far, per channel; returns the largest factor, as a distance from 1."""
        made, read = self.reach(), self.second.input_reach()
        alive = (made > 0) & (read > 0)
        factor = np.sqrt(np.where(alive, made, 1.0) / np.where(alive, read, 1.0))
        factor = np.clip(factor, 1 / MAX_FACTOR, MAX_FACTOR)
        self.first.scale_outputs(1 / factor)
        self.second.scale_inputs(factor)
        if self.seen is not None:
            self.seen = self.seen / factor
        return float(np.abs(np.log(factor)).max())


def _balance(pairs: list[_Pair]) -> int:
    for done in range(MAX_ROUNDS):
        if max((pair.balance() for pair in pairs), default=0.0) < SETTLED:
            return done + 1
    return MAX_ROUNDS


def _pairs(graph: Graph, reach: dict[str, Floats]) -> list[_Pair]:
    layers = [layer for layer in layers_of(graph) if layer.node.op_type in EQUALIZED and _owns_weights(graph, layer)]
    sides = {layer.node.output[0]: _side(graph, layer) for layer in layers}
    pairs = []
    for name, first in sides.items():
        read = _handed_on(graph, name, first.layer.channels)
        reader = graph.consumers[read][0] if read else None
        second = sides.get(reader.output[0]) if reader is not None else None
        if second is not None and second.layer.node.input[0] == read and _width(second) == first.layer.channels:
            pairs.append(_Pair(first, second, reach.get(graph.alias.get(read, read))))
    return pairs


def _side(graph: Graph, layer: Layer) -> _Side:
    weight = layer.view(value_of(graph.initializers[layer.weight]).astype(np.float64))
    bias = value_of(graph.initializers[layer.bias]).astype(np.float64) if layer.bias else None
    return _Side(layer, weight, bias)


def _width(side: _Side) -> int:
    return int(side.weight.shape[0] * side.weight.shape[2])


def _owns_weights(graph: Graph, layer: Layer) -> bool:
    """Whether nobody else reads the layer's constants."""
    constants = [name for name in (layer.weight, layer.bias) if name]
    return all(name in graph.initializers and len(graph.consumers[name]) == 1 for name in constants)


def _handed_on(graph: Graph, name: str, channels: int) -> str:
    """The tensor behind `name` that a layer reads, through operators that keep channels; empty where the path forks."""
    while name not in graph.outputs and len(graph.consumers.get(name, [])) == 1:
        reader = graph.consumers[name][0]
        if reader.op_type not in HOMOGENEOUS:
            return name
        name = reader.output[0]
        shape = graph.types.get(name, (0, ()))[1]
        if len(shape) < 2 or shape[1] != channels:  # such as Flatten of more than one position
            return ""
    return ""
