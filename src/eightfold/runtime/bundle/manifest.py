"""The manifest of a bundle: what each file is, what it must hash to, how it was made and how good it is.

This is the contract between the stages that write bundles and every runtime that reads them, the C++ one included.
Pure data: needs the base install only.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.images.preprocess_rules import LARGEST_SIDE
from eightfold.errors import BundleError, EightfoldError
from eightfold.json_types import JsonDict
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.bundle.sizes import Size
from eightfold.values import Frozen, JsonObject, Value

Format = Literal["onnx", "engine", "openvino"]
TaskKind = Literal["classify", "detect", "segment", "matte", "tensors"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
# No network comes near this; a reader allocates what a manifest states.
LARGEST_BATCH = 1 << 16


class Step(Frozen):
    """One transformation on the way to an artifact, with its error against the artifact before it.

    An error is None where it was not measured or has no finite value: relative to a tensor of zeros, for one.
    """

    name: str
    tool: str = ""
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cosine: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()

    @field_validator("max_abs_error", "max_rel_error", "cosine", "seconds")
    @classmethod
    def _finite_or_none(cls, value: float | None) -> float | None:
        """None in place of infinity, which JSON does not have."""
        return value if value is not None and math.isfinite(value) else None


class Metric(Frozen):
    """A task metric measured on the artifact itself."""

    name: str
    value: float = Field(allow_inf_nan=False)
    data: str = Field(description="digest of the image set")
    images: int = Field(ge=0)


class Artifact(Frozen):
    """One runnable file: a network at one precision, for one target, batch and size."""

    id: str
    variant: str = Field(description="which network: 'baseline', 'pruned', ...")
    format: Format
    precision: Precision
    target: str = Field(description="'cpu-x86', 'tensorrt:10.3', 'rtx:sm86', ...; 'any' for a plain FP32 graph")
    batch: int = Field(ge=1, le=LARGEST_BATCH)
    path: str
    files: tuple[str, ...] = Field(default=(), description="further files that `path` needs, e.g. external weights")
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
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

    def image_size(self, layout: Literal["nchw", "nhwc"]) -> Size | None:
        """Height and width of its only input; None where it has several, or one that can hold no images."""
        if len(self.inputs) != 1 or len(self.inputs[0].shape) != 4:
            return None
        shape = self.inputs[0].shape
        height, width = shape[2:] if layout == "nchw" else shape[1:3]
        return (height, width) if all(1 <= side <= LARGEST_SIDE for side in (height, width)) else None


class Task(Frozen):
    """Meaning of the outputs. `decode` names a decoder of the runtime, `options` are its arguments."""

    kind: TaskKind
    decode: str
    labels: tuple[str, ...] = ()
    options: JsonObject = Field(default_factory=dict)


class FileEntry(Frozen):
    """Size and SHA-256 of a file."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Value):
    """`manifest.json`. Paths are relative, use '/', and never leave the bundle.

    The size of `preprocess` is the default one; an artifact of another size is fed by the same rules at that size.
    """

    kind: ClassVar[str] = "bundle manifest"
    error: ClassVar[type[EightfoldError]] = BundleError
    strict_json: ClassVar[bool | None] = True

    name: str
    task: Task
    preprocess: Preprocess
    artifacts: tuple[Artifact, ...]
    files: dict[str, FileEntry]
    documents: dict[str, str] = Field(
        default_factory=dict, description="role -> path of what is not run: plan, ranges, latency, report, ..."
    )
    provenance: JsonObject = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        twice = [id for id, count in Counter(artifact.id for artifact in self.artifacts).items() if count > 1]
        if twice:
            raise ValueError(f"two artifacts have the id {twice[0]!r}")
        return self

    @classmethod
    def _writer(cls, data: JsonDict) -> str:
        try:
            return f"eightfold {data['provenance']['versions']['eightfold']!s:.40}, which wrote it"
        except (KeyError, TypeError):
            return super()._writer(data)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """(height, width) of the artifacts, each once, in order of appearance."""
        sizes = (artifact.image_size(self.preprocess.layout) for artifact in self.artifacts)
        return tuple(dict.fromkeys(size for size in sizes if size is not None))

    def preprocess_of(self, artifact: Artifact) -> Preprocess:
        """Preprocessing of this artifact's images."""
        size = artifact.image_size(self.preprocess.layout)
        return self.preprocess if size is None else self.preprocess.at_size(*size)

    def describe(self) -> str:
        size = sum(entry.bytes for entry in self.files.values())
        lines = [f"{self.name}: {self.task.kind}, {len(self.artifacts)} artifacts, {size / 1e6:.1f} MB"]
        lines += [f"  {artifact.id}  {artifact.target}  {artifact.path}" for artifact in self.artifacts]
        return "\n".join(lines)
