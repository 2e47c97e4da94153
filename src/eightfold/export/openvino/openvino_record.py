"""The sidecar of OpenVINO's form of a graph: from what it was made, with what, and how the two compare."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eightfold.errors import BuildError, EightfoldError
from eightfold.files import PathLike
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.bundle.manifest import Precision, Step
from eightfold.values import Value

BELOW_FLOAT32: tuple[Precision, ...] = ("int8", "bf16", "fp16")


class OpenVinoRecord(Value):
    """`<graph>.xml.json`.

    Attributes:
        version: OpenVINO's.
        onnx_sha256: digest of the ONNX file.
        layers: how many run in each precision.
        steps: what the comparison with the ONNX file found.
    """

    kind: ClassVar[str] = "OpenVINO record"
    error: ClassVar[type[EightfoldError]] = BuildError

    version: str
    onnx_sha256: str
    layers: dict[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]

    @property
    def precision(self) -> Precision:
        """The lowest precision among the layers."""
        return next((each for each in BELOW_FLOAT32 if each in self.layers), "fp32")

    def describe(self) -> str:
        layers = ", ".join(f"{count} in {precision}" for precision, count in self.layers.items())
        return f"{self.precision} graph in the form of OpenVINO {self.version}; layers: {layers}"


def openvino_record_path(xml: PathLike) -> Path:
    """Path of the record of an .xml file."""
    return Path(f"{xml}.json")
