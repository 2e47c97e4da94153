"""The sidecar of an engine file: how it was built and what a machine must have to run it. The engine itself stays a
plain engine that every other tool can load."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from eightfold.errors import BuildError, EightfoldError
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.files import PathLike, sha256_of_file
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends.engine_fit import engine_requirements
from eightfold.runtime.bundle.manifest import Step
from eightfold.values import Value


class EngineRecord(Value):
    """`<engine>.json`.

    Attributes:
        builder: the Python module that built it: "tensorrt" or "tensorrt_rtx".
        builder_version: its full version; an engine runs on no other, unless it was built to.
        device: name of the GPU it was built on; "" when built without one.
        compute_capability: "8.6", or several parted by commas; "" where it is not known.
        flags: builder and network flags that were set, and the hardware compatibility level.
        options: what was asked for beside target and precision; without the names of files.
        float_nodes: nodes of the graph that images showed to need float32, in a float16 one.
        gpu_layers: layers of the network that a deep learning accelerator does not take, and that go to the GPU.
        onnx_sha256: digest of the ONNX file that was given, before any conversion to float16.
        graph_sha256: digest of its graph and weights, wherever these are stored; "" where it was not kept.
        parsed_sha256: digest of what was parsed, weights included; "" where it was not kept.
        messages: what parser and builder said, from information to errors.
    """

    kind: ClassVar[str] = "engine record"
    error: ClassVar[type[EightfoldError]] = BuildError

    target: str
    precision: Literal["fp32", "fp16", "int8"]
    builder: str
    builder_version: str
    device: str = ""
    compute_capability: str = ""
    flags: tuple[str, ...] = ()
    options: BuildOptions = BuildOptions()
    float_nodes: tuple[str, ...] = ()
    gpu_layers: tuple[str, ...] = ()
    onnx_sha256: str
    graph_sha256: str = ""
    parsed_sha256: str = ""
    engine_sha256: str
    engine_bytes: int
    seconds: float
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...] = ()
    messages: tuple[str, ...] = ()

    @classmethod
    def of(cls, engine: PathLike) -> EngineRecord:
        """The record beside an engine file. Raises BuildError where there is none, or it is another engine's."""
        if not sidecar_path(engine).is_file():
            raise BuildError(
                f"no record lies beside {engine}: there is no {sidecar_path(engine).name}",
                allowed="engines with the record that eightfold build wrote",
                remedy="copy it from where the engine was built, or build it again",
            )
        record = cls.load(sidecar_path(engine))
        if Path(engine).is_file() and sha256_of_file(engine) != record.engine_sha256:
            raise BuildError(
                f"{sidecar_path(engine)} is the record of another engine",
                allowed="an engine and its record as they were built",
                remedy="copy both again from where the engine was built, or build it again",
            )
        return record

    @property
    def is_converted(self) -> bool:
        """True if the graph was converted to float16 before it was parsed."""
        return self.precision != "fp32" and "STRONGLY_TYPED" in self.flags

    @property
    def requires(self) -> dict[str, str]:
        """Requirements on a machine, as the manifest states them: see `eightfold.runtime.backends.engine_fit`."""
        return engine_requirements(self.builder, self.builder_version, self.compute_capability, self.flags)

    def describe(self) -> str:
        needs = ", ".join(f"{name} {value}" for name, value in self.requires.items())
        line = f"{self.precision} engine for {self.target}, {self.engine_bytes / 1e6:.1f} MB, needs {needs}"
        if not self.gpu_layers:
            return line
        count = len(self.gpu_layers)
        return f"{line}; {count} layer{'s go' if count > 1 else ' goes'} to the GPU: {', '.join(self.gpu_layers)}"


def sidecar_path(engine: PathLike) -> Path:
    """Path of the record of an engine file."""
    return Path(f"{engine}.json")
