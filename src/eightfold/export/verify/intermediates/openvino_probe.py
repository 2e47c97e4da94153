"""The inner tensors of a model that OpenVINO runs: what its operators make is added to the outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from eightfold.arrays import Arrays
from eightfold.errors import ModelError, last_line
from eightfold.export.verify.intermediates.probe import Intermediate, Intermediates, See, chunks
from eightfold.extras import require

MOVES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Split", "VariadicSplit", "StridedSlice", "Slice"})


@dataclasses.dataclass(frozen=True)
class OpenVinoProbe:
    """An .xml or .onnx file, run by OpenVINO on the CPU in float32."""

    path: Path

    def watch(self, inputs: Arrays, see: See, wanted: Collection[int] | None = None) -> Intermediates:
        inside, sizes = self._inside()
        for chunk in chunks([place for place in sizes if wanted is None or place in wanted], sizes):
            self._run(inputs, chunk, see)
        return inside

    def _read(self) -> tuple[Any, Any]:
        openvino = require("openvino", "run models with OpenVINO")
        core = openvino.Core()
        try:
            return core, core.read_model(str(self.path))
        except RuntimeError as error:
            raise ModelError(f"openvino cannot load {self.path} ({last_line(error)})") from error

    def _inside(self) -> tuple[Intermediates, dict[int, int]]:
        """The intermediate tensors, and the bytes of each floating-point one by place."""
        _, model = self._read()
        ports, tensors = _dependent(model)
        sizes = {
            place: 4 * math.prod(port.get_shape())
            for place, port in enumerate(ports)
            if port.get_element_type().is_real() and not port.get_partial_shape().is_dynamic
        }
        place_of = {_key(port): place for place, port in enumerate(ports)}
        ends = (place_of.get(_key(result.input_value(0)), -1) for result in model.get_results())
        return Intermediates(tuple(tensors), tuple(place for place in ends if place >= 0)), sizes

    def _run(self, inputs: Arrays, places: list[int], see: See) -> None:
        core, model = self._read()
        ports, _ = _dependent(model)
        model.add_outputs([ports[place] for place in places])
        try:
            answers = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(dict(inputs)).to_tuple()
        except RuntimeError as error:
            raise ModelError(f"openvino cannot run {self.path} with inner outputs ({last_line(error)})") from error
        ends = {
            _key(result.input_value(0)): answer for result, answer in zip(model.get_results(), answers, strict=True)
        }
        for place in places:
            see(place, ends[_key(ports[place])])


def _dependent(model: Any) -> tuple[list[Any], list[Intermediate]]:
    """Ports that depend on the inputs, in order of computation, with their operators."""
    place_of: dict[tuple[str, int], int] = {(each.get_friendly_name(), 0): -1 for each in model.get_parameters()}
    ports, tensors = list[Any](), list[Intermediate]()
    for node in model.get_ordered_ops():
        sources = {place_of[key] for key in map(_key, node.input_values()) if key in place_of}
        kind, name = node.get_type_name(), node.get_friendly_name()
        for port in node.outputs() if sources and kind != "Result" else ():
            shown = name if len(node.outputs()) == 1 else f"{name}.{port.get_index()}"
            place_of[_key(port)] = len(tensors)
            ports.append(port)
            tensors.append(
                Intermediate(shown, kind, tuple(sorted(each for each in sources if each >= 0)), kind in MOVES)
            )
    return ports, tensors


def _key(port: Any) -> tuple[str, int]:
    return port.get_node().get_friendly_name(), port.get_index()
