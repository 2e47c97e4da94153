"""A TensorRT engine in memory with its record and its layers, and the files that it becomes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from eightfold.export.tensorrt.layers import EngineLayers, layers_path
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.files import PathLike, write_bytes
from eightfold.runtime.bundle.manifest import Step


@dataclasses.dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine, its record, and its layers as far as this machine can tell them.

    Attributes:
        operators: operator types of the ONNX graph.
    """

    content: bytes
    record: EngineRecord
    layers: EngineLayers
    operators: frozenset[str]

    def with_step(self, step: Step | None) -> BuiltEngine:
        """The same engine with one more step in its record, unless it is None."""
        if step is None:
            return self
        return dataclasses.replace(self, record=self.record.model_copy(update={"steps": (*self.record.steps, step)}))

    def save(self, output: PathLike) -> Path:
        """Write the engine to `output`, its record to `<output>.json` and its layers to `<output>.layers.json`."""
        write_bytes(output, self.content)
        self.record.save(sidecar_path(output))
        self.layers.save(layers_path(output))
        return Path(output)
