"""The inner tensors of a TensorRT engine. An engine has none to show: it is built again, in the same way and from the
same graph, with tensors of the graph as further outputs, some hundred megabytes of them in one engine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection
from pathlib import Path

from eightfold.arrays import Arrays
from eightfold.export.tensorrt.engine_from_onnx import engine_from_onnx
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.parse import TypedGraph, typed_graph
from eightfold.export.tensorrt.record import EngineRecord
from eightfold.export.verify.intermediates.onnx_probe import MOVES, intermediates_of, tensor_bytes
from eightfold.export.verify.intermediates.probe import Intermediates, See, chunks
from eightfold.export.verify.sessions import BACKEND_OF_BUILDER, session_runner
from eightfold.export.verify.verify import Run
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.scratch import scratch_folder_of

# What is fused into its neighbours or is no computation: as outputs these would only keep layers apart.
UNSEEN = MOVES | {"QuantizeLinear", "DequantizeLinear"}


@dataclasses.dataclass(frozen=True, eq=False)
class EngineSource:
    """The graph and record that an engine was built from.

    Attributes:
        record: how.
        graph: the ONNX file.
    """

    record: EngineRecord
    graph: Path

    @property
    def options(self) -> BuildOptions:
        """The build options, with the layers that images kept in float."""
        options = self.record.options
        kept = (*options.float_layers, *self.record.float_nodes)
        return options.model_copy(update={"float_layers": kept, "strip_weights": False})

    def typed(self) -> contextlib.AbstractContextManager[TypedGraph]:
        """The graph that was parsed."""
        half = self.record.is_converted
        return typed_graph(self.graph, half=half, inputs=None, keep_float=self.options.float_layers if half else ())


class EngineProbe:
    """An engine whose builder and GPU are here. Each engine is built when it is first needed, and kept."""

    def __init__(self, source: EngineSource) -> None:
        self.source = source
        with source.typed() as typed:
            model = load_onnx(typed.path)
            #: Whether the float16 form of the graph is the one that the engine was built from.
            self.same = not source.record.is_converted or typed.sha256 == source.record.parsed_sha256
        self._names, self.inside = intermediates_of(model)
        #: Tensor -> the node that makes it.
        self.nodes = {name: node.name for node in model.graph.node for name in node.output}
        sizes = tensor_bytes(model)
        visible = [
            name
            for place, name in enumerate(self._names)
            if place not in self.inside.outputs and self.inside.tensors[place].op not in UNSEEN and sizes.get(name, 1)
        ]
        #: Names of the tensors that each engine gives out, beside the graph's outputs.
        self.chunks = list(chunks(visible, sizes)) or [[]]
        self._folder = scratch_folder_of(self)
        self._runs: dict[int, Run] = {}

    def watch(self, inputs: Arrays, see: See, wanted: Collection[int] | None = None) -> Intermediates:
        place_of = {name: place for place, name in enumerate(self._names)}
        ends = [self._names[place] for place in self.inside.outputs]
        for number, chunk in enumerate(self.chunks):
            places = [place_of[name] for name in (*chunk, *(ends if number == 0 else ()))]
            asked = [place for place in places if wanted is None or place in wanted]
            answers = self._runner(number)(inputs) if asked else {}
            for place in asked:
                if answers[self._names[place]].dtype.kind == "f":
                    see(place, answers[self._names[place]])
        return self.inside

    def _runner(self, number: int) -> Run:
        if number not in self._runs:
            engine = self._built(self._folder / f"{number}.engine", self.chunks[number])
            record = self.source.record
            self._runs[number], _ = session_runner(
                engine,
                BACKEND_OF_BUILDER[record.builder],
                name=f"the engine for {self.source.graph}",
                remedy="run this on the device that the engine is for",
                device=record.options.device,
            )
        return self._runs[number]

    def _built(self, path: Path, names: list[str]) -> Path:
        record = self.source.record
        options = self.source.options.model_copy(update={"inner_outputs": tuple(names)})
        engine = engine_from_onnx(self.source.graph, target=record.target, precision=record.precision, options=options)
        return engine.save(path)
