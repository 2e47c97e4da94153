"""The manifest of a bundle: what each file is, what it must hash to, how it was made and how good it is.

This is the contract between the stages that write bundles and every runtime that reads them, the C++ one included.
Pure data: needs the base install only.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import BundleError, EightfoldError
from eightfold.values import Frozen, Value

Format = Literal["onnx", "engine", "openvino"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class TensorSpec(Frozen):
    """One input or output of an artifact. Shapes are static."""

    name: str
    dtype: Literal["float32", "float16", "uint8", "int8", "int32", "int64", "bool"]
    shape: tuple[int, ...]


class Step(Frozen):
    """One transformation on the way to an artifact, with its error against the artifact before it."""

    name: str
    tool: str = ""
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cosine: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()


class Metric(Frozen):
    """A task metric measured on the artifact itself."""

    name: str
    value: float
    data: str = Field(description="digest of the image set")
    images: int


class Artifact(Frozen):
    """One runnable file: a network at one precision, for one target, batch and size."""

    id: str
    variant: str = Field(description="which network: 'baseline', 'pruned', ...")
    format: Format
    precision: Precision
    target: str = Field(description="'cpu-x86', 'tensorrt:10.3', 'rtx:sm86', ...; 'any' for a plain FP32 graph")
    batch: int = Field(ge=1)
    path: str
    files: tuple[str, ...] = Field(default=(), description="further files that `path` needs, e.g. external weights")
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metrics: tuple[Metric, ...] = ()
    steps: tuple[Step, ...] = ()
    requires: dict[str, str] = Field(
        default_factory=dict,
        description="what the machine must have, e.g. tensorrt_rtx=1.7.1.116, compute_capability=8.6. A value holds "
        "alternatives parted by commas, each of conditions parted by blanks that all have to hold: 8.6, >=8.0, <12",
    )
    layers: dict[str, int] = Field(
        default_factory=dict, description="how many layers run in each precision, e.g. int8=52, fp32=1"
    )
    deterministic: bool = True


class Task(Frozen):
    """What the outputs mean. `decode` names a decoder of the runtime, `options` are its arguments."""

    kind: Literal["classify", "detect", "segment", "matte", "tensors"]
    decode: str
    labels: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)


class FileEntry(Frozen):
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Value):
    """`manifest.json`. Paths are relative, use '/', and never leave the bundle."""

    kind: ClassVar[str] = "bundle manifest"
    error: ClassVar[type[EightfoldError]] = BundleError

    name: str
    task: Task
    preprocess: Preprocess
    artifacts: tuple[Artifact, ...]
    files: dict[str, FileEntry]
    documents: dict[str, str] = Field(
        default_factory=dict, description="role -> path of what is not run: plan, ranges, latency, report, ..."
    )
    provenance: dict[str, Any] = Field(default_factory=dict)

    def describe(self) -> str:
        size = sum(entry.bytes for entry in self.files.values())
        lines = [f"{self.name}: {self.task.kind}, {len(self.artifacts)} artifacts, {size / 1e6:.1f} MB"]
        lines += [f"  {artifact.id}  {artifact.target}  {artifact.path}" for artifact in self.artifacts]
        return "\n".join(lines)
