"""AdaRound: round each weight up or down so that the layer's outputs, not its weights, change least.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020. For a layer y = W x the
expected error is d G d' per output, with d the change of that output's weights and G = E[x x'] (equation 13 of the
paper). G has fixed size, so one pass over the images is enough, and no gradient needs automatic differentiation. What
the relaxed problem ends with is polished: the single flip that helps most is taken, until none does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eightfold.calib.calibrate import CalibrationOptions, observe
from eightfold.calib.images.data_reader import DataReader
from eightfold.calib.observers import Seeing
from eightfold.export.int8.int8 import quantize_weight
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import Layer, set_value, value_of
from eightfold.progress import track

Floats = npt.NDArray[np.floating[Any]]

MAX_INPUTS = 2400  # products per output: above, G and the search over it take minutes per layer, so that
BLOCK = 600  # it is cut into blocks of input channels of at most so many products, each with a G of its own
MAX_WEIGHTS = 4 << 20  # searched at a time
POSITIONS = 64  # of each image that G is averaged over
STEPS = 400
LEARNING_RATE = 0.03
PULL = 0.05  # weight of the term that drives every h to 0 or 1
WARM_UP = 0.2  # share of the steps without that term
STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1  # the rectified sigmoid's ends, as in the paper


def round_adaptively_(
    graph: ModelGraph, layers: list[Layer], rows: DataReader, *, levels: int = 127
) -> dict[str, float]:
    """Replace the weights of `layers` by what their integers will stand for, rounded adaptively, in place.

    Args:
        graph: the float graph.
        layers: to round. Transposed and automatically padded convolutions are left. Layers with more than MAX_INPUTS
            products per output are rounded in blocks of input channels, as if what different blocks add were not
            correlated.
        rows: the calibration images.
        levels: the largest magnitude of an integer, as `quantize_weight` takes it.

    Returns:
        layer name -> expected squared error of its outputs, as a share of what rounding to nearest gives.
    """
    suited = [layer for layer in layers if _is_suited(layer)]
    grams = _grams(graph, suited, rows)
    return {layer.name: _round(graph, layer, grams[layer.name], levels) for layer in track(suited, "rounding weights")}


def _is_suited(layer: Layer) -> bool:
    if layer.node.op_type == "Gemm":
        return True
    padded = any(entry.name == "auto_pad" and entry.s not in (b"", b"NOTSET") for entry in layer.node.attribute)
    is_2d = layer.node.op_type == "Conv" and len(layer.shape) == 4
    return is_2d and not padded


def blocks_of(inputs: int, positions: int) -> int:
    """Into how many equal blocks of input channels a layer is cut: as few as keep each at BLOCK products or below.

    >>> blocks_of(256, 9), blocks_of(512, 9), blocks_of(25088, 1)
    (1, 8, 49)
    """
    if inputs * positions <= MAX_INPUTS:
        return 1
    return next(
        n for n in range(2, inputs + 1) if inputs % n == 0 and (inputs // n * positions <= BLOCK or n == inputs)
    )


def _cut(values: Floats, blocks: int) -> Floats:
    """(groups, rows, K) as (groups * blocks, rows, K / blocks)."""
    groups, rows, _ = values.shape
    return values.reshape(groups, rows, blocks, -1).transpose(0, 2, 1, 3).reshape(groups * blocks, rows, -1)


def _joined(values: Floats, blocks: int) -> Floats:
    """The inverse of `_cut`."""
    _, rows, width = values.shape
    return values.reshape(-1, blocks, rows, width).transpose(0, 2, 1, 3).reshape(-1, rows, blocks * width)


def _grams(graph: ModelGraph, layers: list[Layer], rows: DataReader) -> dict[str, Floats]:
    seen = {layer.name: _Gram(layer, _blocks(layer)) for layer in layers}
    by_tensor: dict[str, list[_Gram]] = {}
    for layer in layers:
        by_tensor.setdefault(layer.node.input[0], []).append(seen[layer.name])
    observers: dict[str, Seeing] = {name: _Several(grams) for name, grams in by_tensor.items()}
    observe(graph, rows, observers, CalibrationOptions("minmax", batch=4), what="measuring layer inputs")
    return {name: gram.mean() for name, gram in seen.items()}


def _blocks(layer: Layer) -> int:
    _, _, inputs, positions = layer.view(np.empty(layer.shape, np.bool_)).shape
    return blocks_of(inputs, positions)


@dataclass(frozen=True)
class _Several:
    """One tensor that several layers read."""

    observers: list[_Gram]

    def see(self, values: Floats) -> None:
        for observer in self.observers:
            observer.see(values)


@dataclass
class _Gram:
    """The running mean of x x' over a layer's input patches, (groups * blocks, K / blocks, K / blocks)."""

    layer: Layer
    blocks: int
    total: Floats | None = None
    count: int = 0
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def see(self, values: Floats) -> None:
        for row in values:
            patches = _cut(_patches(self.layer, row, self.random), self.blocks)
            product = patches.transpose(0, 2, 1) @ patches
            self.total = product if self.total is None else self.total + product
            self.count += patches.shape[1]

    def mean(self) -> Floats:
        if self.total is None:
            raise ValueError("the mean of nothing")
        return self.total / self.count


def _patches(layer: Layer, row: Floats, random: np.random.Generator) -> Floats:
    """The inputs that the layer multiplies its weights with at some positions: (groups, positions, K) float32."""
    if layer.node.op_type == "Gemm":
        return row.reshape(1, -1, layer.view(np.empty(layer.shape, np.bool_)).shape[2]).astype(np.float32)
    given = {entry.name: list(entry.ints) for entry in layer.node.attribute}
    (height, width), strides = layer.shape[2:], given.get("strides", [1, 1])
    dilations, pads = given.get("dilations", [1, 1]), given.get("pads", [0, 0, 0, 0])
    padded = np.pad(row, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    rows_, columns = np.arange(height) * dilations[0], np.arange(width) * dilations[1]
    last = (padded.shape[1] - 1 - rows_[-1]) // strides[0], (padded.shape[2] - 1 - columns[-1]) // strides[1]
    count = min(POSITIONS, (last[0] + 1) * (last[1] + 1))
    y = random.integers(0, last[0] + 1, count) * strides[0]
    x = random.integers(0, last[1] + 1, count) * strides[1]
    index_y = y[:, None, None] + rows_[:, None]
    index_x = x[:, None, None] + columns
    patches = padded[:, index_y, index_x]  # (C, P, kh, kw)
    grouped = patches.reshape(layer.groups, -1, count, height * width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(grouped.reshape(layer.groups, count, -1), np.float32)


def _round(graph: ModelGraph, layer: Layer, gram: Floats, levels: int) -> float:
    weight = value_of(graph.weights[layer.weight])
    nearest = quantize_weight(weight, layer.output_axis, levels=levels)
    shape = [1] * weight.ndim
    shape[layer.output_axis] = -1
    scale = layer.view(np.broadcast_to(nearest.scale.reshape(shape), weight.shape).copy())
    viewed = layer.view(weight)
    blocks = _blocks(layer)
    exact = _cut((viewed / scale).reshape(*viewed.shape[:2], -1), blocks)
    gram = gram / np.trace(gram, axis1=1, axis2=2).mean() * gram.shape[1]
    rounded = np.concatenate([adaptive_rounding(part, gram, levels)[0] for part in _slices(exact)], axis=1)
    before, after = (_error(values - exact, gram).sum() for values in (np.rint(exact), rounded))
    values = _joined(rounded, blocks).reshape(viewed.shape) * scale
    tensor = graph.weights[layer.weight]
    set_value(tensor, layer.unview(values))
    return float(after / max(before, 1e-30))


def _slices(exact: Floats) -> list[Floats]:
    """Some outputs at a time: they do not depend on each other, and the search holds eight arrays of their size."""
    count = -(-exact.size // MAX_WEIGHTS)
    return np.array_split(exact, min(count, exact.shape[1]), axis=1)


def adaptive_rounding(exact: Floats, gram: Floats, levels: int = 127) -> tuple[Floats, float]:
    """Integers next to `exact` whose difference d from it makes d G d' small.

    Args:
        exact: (groups, outputs, K) weights divided by their scale.
        gram: (groups, K, K), scaled to a mean diagonal of about 1.
        levels: the magnitude of the weight that defines a channel's scale.

    Returns:
        The integers, as floats, and their error as a share of rounding to nearest. An output for which the search found
        nothing better keeps the nearest.
    """
    exact = exact.astype(np.float32)
    low = np.floor(exact)
    fraction = np.clip(exact - low, 0.0, 1.0)
    nearest = np.rint(exact)
    # The largest weight of a channel defines its scale: moving it would move the scale.
    fixed = np.abs(exact) > levels - 0.5
    raised = _search(fraction, gram.astype(np.float32)) >= 0.5
    found = _polished(np.where(fixed, nearest, low + raised), low, exact, gram, fixed)
    before, after = _error(nearest - exact, gram), _error(found - exact, gram)
    better = after < before
    result = np.where(better[..., None], found, nearest)
    return result, float(np.where(better, after, before).sum() / max(before.sum(), 1e-30))


def _polished(found: Floats, low: Floats, exact: Floats, gram: Floats, fixed: npt.NDArray[np.bool_]) -> Floats:
    """Flip the rounding of one weight per output at a time, the one that lowers its error most."""
    found, diagonal = found.copy(), np.diagonal(gram, axis1=1, axis2=2)[:, None]
    pushed = (found - exact) @ gram
    for _ in range(found.shape[2]):
        flip = np.where(found > low, -1.0, 1.0)
        change = np.where(fixed, 0.0, 2 * flip * pushed + diagonal)
        best = change.argmin(axis=2)
        group, output = np.nonzero(np.take_along_axis(change, best[..., None], axis=2)[..., 0] < 0)
        if not group.size:
            break
        at = (group, output, best[group, output])
        pushed[group, output] += flip[at][:, None] * gram[group, at[2]]
        found[at] += flip[at]
    return found


def _error(difference: Floats, gram: Floats) -> Floats:
    error: Floats = np.einsum("gok,gok->go", difference @ gram, difference)
    return error


def _search(fraction: Floats, gram: Floats) -> Floats:
    """h in [0, 1] of the same shape as `fraction`, by Adam on the relaxed problem."""
    span = STRETCH_HIGH - STRETCH_LOW
    start = np.clip((fraction - STRETCH_LOW) / span, 1e-3, 1 - 1e-3)
    value = np.log(start / (1 - start))
    mean, square = np.zeros_like(value), np.zeros_like(value)
    for step in range(1, STEPS + 1):
        sigmoid = 1 / (1 + np.exp(-value))
        h = np.clip(sigmoid * span + STRETCH_LOW, 0, 1)
        slope = np.where((h > 0) & (h < 1), span * sigmoid * (1 - sigmoid), 0)
        gradient = (2 * ((h - fraction) @ gram) + _pull(h, step / STEPS)) * slope
        mean += 0.1 * (gradient - mean)
        square += 0.001 * (gradient * gradient - square)
        value -= LEARNING_RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return np.asarray(np.clip(1 / (1 + np.exp(-value)) * span + STRETCH_LOW, 0, 1))


def _pull(h: Floats, done: float) -> Floats:
    """Gradient of PULL * (1 - |2h - 1| ** beta), with beta falling from 20 to 2."""
    if done < WARM_UP:
        return np.zeros_like(h)
    beta = 2 + 18 * (1 - (done - WARM_UP) / (1 - WARM_UP))
    centred = 2 * h - 1
    return np.asarray(-PULL * 2 * beta * np.sign(centred) * np.abs(centred) ** (beta - 1))
