"""Bias correction: rounding shifts the mean of what a layer gives, and its bias takes the shift back.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from eightfold.calib.calibrate import CalibrationOptions, observe
from eightfold.calib.images.data_reader import DataReader
from eightfold.calib.observers import ChannelMean
from eightfold.export.int8.int8 import quantize_weight
from eightfold.extras import require
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import BIAS_INPUT, Layer, layers_of, value_of
from eightfold.progress import track

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float64]
Correction = Literal["none", "analytic", "empirical"]
Quantizer = Callable[[ModelGraph], ModelGraph]
RowsMaker = Callable[[], DataReader]


def corrected_layers(graph: ModelGraph, quantized: frozenset[str]) -> list[Layer]:
    """The quantized layers that can take a bias."""
    return [layer for layer in layers_of(graph) if layer.node.op_type in BIAS_INPUT and layer.name in quantized]


def correct_analytically(
    graph: ModelGraph, layers: list[Layer], rows: DataReader, *, levels: int = 127
) -> dict[str, float]:
    """Subtract from each bias what the weights' rounding adds on average: (rounded W - W) E[x], in place.

    E[x] is the mean of each input channel of the float network, in one pass over `rows`; padding is not accounted for.
    `levels` is the largest magnitude of a rounded weight, as `quantize_weight` takes it.

    Returns:
        layer name -> root mean square of the shift over its channels.
    """
    means = _means(graph, {layer.node.input[0] for layer in layers}, rows)
    shifts = {layer.name: -_rounding_shift(graph, layer, means[layer.node.input[0]], levels) for layer in layers}
    return _shift_biases_(graph, layers, shifts)


def correct_empirically(
    graph: ModelGraph, layers: list[Layer], rows: RowsMaker, quantizer: Quantizer
) -> dict[str, float]:
    """Subtract from each bias the shift of the layer's mean output that is measured in the quantized network, in place.

    Layer by layer from the input on, so that what earlier layers' corrections changed is seen: one partial pass over
    the images per layer.

    Args:
        graph: the float graph, whose biases are changed.
        layers: of that graph, in its order.
        rows: makes a fresh stream of the images.
        quantizer: gives the quantized form of the graph as it stands.
    """
    expected = _means(graph, {layer.node.output[0] for layer in layers}, rows())
    effect: dict[str, float] = {}
    for layer in track(layers, "correcting biases"):
        name = layer.node.output[0]
        found = _means(quantizer(graph), {name}, rows(), optimize=False)
        effect |= _shift_biases_(graph, [layer], {layer.name: expected[name] - found[name]})
    return effect


def _means(graph: ModelGraph, names: set[str], rows: DataReader, *, optimize: bool = True) -> dict[str, Floats]:
    observers = {name: ChannelMean() for name in sorted(names)}
    observe(graph, rows, observers, CalibrationOptions("minmax", batch=4), optimize=optimize, what="measuring means")
    return {name: observer.mean() for name, observer in observers.items()}


def _rounding_shift(graph: ModelGraph, layer: Layer, mean: Floats, levels: int) -> Floats:
    weight = value_of(graph.weights[layer.weight])
    rounded = quantize_weight(weight, layer.output_axis, levels=levels).real()
    added = layer.view(rounded.astype(np.float64) - weight).sum(axis=3)  # (groups, outputs, inputs)
    shift: Floats = np.einsum("goi,gi->go", added, mean.reshape(layer.groups, -1)).reshape(-1)
    return shift


def _shift_biases_(graph: ModelGraph, layers: list[Layer], shifts: dict[str, Floats]) -> dict[str, float]:
    for layer in layers:
        _shift_bias(graph, layer, shifts[layer.name])
    return {layer.name: float(np.sqrt(np.mean(shifts[layer.name] ** 2))) for layer in layers}


def _shift_bias(graph: ModelGraph, layer: Layer, shift: Floats) -> None:
    """Give the layer a bias of its own: another may read the same constant."""
    bias: Any = value_of(graph.weights[layer.bias]) if layer.bias in graph.weights else 0.0
    name = graph.free(f"{layer.name}_corrected_bias")
    tensor: onnx.TensorProto = require("onnx", "edit models").numpy_helper.from_array(
        (bias + shift).astype(np.float32), name
    )
    graph.model.graph.initializer.append(tensor)
    graph.weights[name] = graph.model.graph.initializer[-1]
    del layer.node.input[2:]
    layer.node.input.append(name)
