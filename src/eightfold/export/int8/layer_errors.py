"""Locates the error of an INT8 graph: SQNR of every activation that it shares with its FP32 original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.data_reader import batched, open_data, peeked
from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.session import open_runner
from eightfold.errors import CalibrationError
from eightfold.export.verify.sqnr import sqnr_db
from eightfold.files import PathLike
from eightfold.onnx_graph.graph import ModelGraph, read_graph
from eightfold.onnx_graph.layers import label
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.onnx_graph.qoperator import dequantized_forms, with_dequantized
from eightfold.values import Frozen


class LayerError(Frozen):
    """Error of one activation of the INT8 graph against the FP32 one, over all images.

    Args:
        tensor: its name in the FP32 graph.
        node, operator: what makes it.
        sqnr_db: 10 log10 of the signal's energy over the error's.
        max_abs_error: the largest difference, in the tensor's own unit.
    """

    tensor: str
    node: str
    operator: str
    sqnr_db: float
    max_abs_error: float


class LayerErrors(Frozen):
    """All activations that could be compared, worst first."""

    layers: tuple[LayerError, ...]
    images: int

    def describe(self, count: int = 20) -> str:
        """Table for a person: the `count` worst activations."""
        lines = [f"{len(self.layers)} activations over {self.images} images, worst first", "SQNR dB  max error  layer"]
        lines += [
            f"{entry.sqnr_db:7.1f}  {entry.max_abs_error:9.3g}  {entry.node} ({entry.operator})"
            for entry in self.layers[:count]
        ]
        return "\n".join(lines)


@dataclass
class _Energy:
    signal: float = 0.0
    error: float = 0.0
    largest: float = 0.0

    def add(self, expected: Array, found: Array) -> None:
        difference = found.astype(np.float64) - expected
        self.signal += float(np.square(expected, dtype=np.float64).sum())
        self.error += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    def sqnr_db(self) -> float:
        return sqnr_db(self.signal, self.error)


def compare_layers(
    fp32_path: PathLike,
    int8_path: PathLike,
    images: ImageSource,
    preprocess: Preprocess | None = None,
    *,
    batch: int = 4,
) -> LayerErrors:
    """Run images through both graphs and compare every activation. Errors of earlier layers are carried along.

    Args:
        fp32_path: the graph that was quantized.
        int8_path: what `quantize` made of it.
        images, preprocess: as for `calibrate`.
        batch: images to run at a time.

    Raises:
        CalibrationError: the two graphs have no activation in common.
    """
    before, after = read_graph(fp32_path), ModelGraph(with_dequantized(load_onnx(int8_path)), str(int8_path))
    names = _common(before, after)
    if not names:
        raise CalibrationError(
            f"{int8_path} shares no activation with {fp32_path}", allowed="the INT8 form of that graph"
        )
    rows = open_data(images, preprocess, before.input_shape[1:], before.input_dtype)
    energies = _measure(before, after, names, rows, batch)
    found = [_layer_error(before, name, energy) for name, energy in energies.items()]
    return LayerErrors(layers=tuple(sorted(found, key=lambda entry: entry.sqnr_db)), images=rows.tally.used)


def output_sqnr_db(
    fp32_path: PathLike,
    int8_path: PathLike,
    images: ImageSource,
    preprocess: Preprocess | None = None,
    *,
    batch: int = 8,
) -> float:
    """Signal to noise of the graph's outputs in dB, the mean over outputs. Arguments as for `compare_layers`."""
    before, after = read_graph(fp32_path), ModelGraph(load_onnx(int8_path), str(int8_path))
    names = {value.name: value.name for value in before.model.graph.output}
    rows = open_data(images, preprocess, before.input_shape[1:], before.input_dtype)
    energies = _measure(before, after, names, rows, batch)
    return float(np.mean([energy.sqnr_db() for energy in energies.values()]))


def _common(before: ModelGraph, after: ModelGraph) -> dict[str, str]:
    """Activation of the FP32 graph -> the same in the INT8 graph, behind its Q/DQ pair where it has one."""
    there, forms = set(after.producer), dequantized_forms(after.model)
    pairs = {name: forms.get(name, name) for name in before.observed}
    return {name: other for name, other in pairs.items() if other in there}


def _measure(before: ModelGraph, after: ModelGraph, names: dict[str, str], rows: Any, batch: int) -> dict[str, _Energy]:
    first, stream = peeked(rows, "comparing layers")
    expected_of = open_runner(before, tuple(names), first, batch=batch)
    found_of = open_runner(after, tuple(names.values()), first, batch=expected_of.rows, optimize=False)
    energies = {name: _Energy() for name in names}
    for named in batched(stream, min(expected_of.rows, found_of.rows)):
        inputs = [row for _, row in named]
        expected = {name: value for part in expected_of(inputs) for name, value in part.items()}
        for part in found_of(inputs):
            for name, other in names.items():
                if other in part:
                    energies[name].add(expected[name], part[other])
    return energies


def _layer_error(graph: ModelGraph, name: str, energy: _Energy) -> LayerError:
    node = graph.producer.get(name)
    return LayerError(
        tensor=name,
        node=label(node) if node is not None else name,
        operator=node.op_type if node is not None else "input",
        sqnr_db=energy.sqnr_db(),
        max_abs_error=energy.largest,
    )
