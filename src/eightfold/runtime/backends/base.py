"""Interface of the backends to the rest of the runtime. Each backend's library is imported in its own module only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import BackendError, UsageError
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends.finite import all_finite
from eightfold.threads import most_threads

# What the time of one `Slot.run` covers: see `LatencyRow`.
Scope = Literal["model", "model+copies", "end-to-end"]


@dataclass(frozen=True)
class SessionOptions:
    """User options for running a model.

    Attributes:
        threads: intra-op threads on a CPU; None leaves it to the backend.
        device: number of the accelerator.
        precision: of the file, for a backend that must be told.
        keep_compiled: keep what took long to compile in the user's cache, so that the next start is quick.
        cores: numbers of the logical cores for the threads on a CPU, one each, the caller's first; the kernel chooses
            where none are named. A backend that cannot pin its threads leaves them to the kernel.
        node_times: time every node of the graph, which slows the runs a little; see `Slot.node_times`.
        flush_denormals: take numbers below 1e-38 for zero. Trained networks have none; in networks of random weights
            they slow convolutions down four times, which says nothing of the trained ones.
        requests: in flight at a time, for a backend that must be told.
    """

    threads: int | None = None
    device: int = 0
    precision: str = "fp32"
    keep_compiled: bool = False
    cores: tuple[int, ...] = ()
    node_times: bool = False
    flush_denormals: bool = False
    requests: int = 1

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= most_threads():
            raise UsageError(
                f"{self.threads} threads",
                allowed=f"1 to {most_threads()} on this machine",
                remedy="leave it out for the backend's own choice",
            )


@dataclass(frozen=True)
class NodeTime:
    """Time of one node of the compiled graph: its operator there, and the lower quartile of milliseconds per run.

    Disturbances only add time: the lower quartile is what the node takes on a machine that is not busy otherwise.
    """

    operator: str
    ms: float


class Slot(ABC):
    """Buffers for one request in flight; belongs to one thread at a time.

    `inputs` are written by the caller, `outputs` are valid until the next run of this slot.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]

    @abstractmethod
    def run(self) -> None:
        """inputs -> outputs. Raises BackendError."""

    def run_on(self, arrays: Arrays) -> None:
        """Run on arrays of the caller, which have been checked. Backends that can bind them do without the copy."""
        for name, buffer in self.inputs.items():
            np.copyto(buffer, arrays[name])
        self.run()

    def node_times(self) -> dict[str, NodeTime]:
        """Time of each node by name, over all runs so far. Ask once, at the end.

        Raises BackendError where the back end cannot tell, or the session was opened without `node_times`.
        """
        raise BackendError("this back end does not time single nodes", allowed="onnxruntime, openvino")


class Session(ABC):
    """A loaded model of static shapes. Safe to share between threads, each with its own slot."""

    backend: str
    version: str
    provider: str = ""
    threads: int | None = None
    pinned: bool = False  # each of its threads to a core of `SessionOptions.cores`, but for the caller's
    scope: Scope = "model"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @abstractmethod
    def new_slot(self) -> Slot:
        """New buffers for one request in flight."""

    def close(self) -> None:  # noqa: B027  most backends release with the last reference
        """Release device memory."""

    def check(self, arrays: Arrays) -> None:
        """Raise BackendError unless `arrays` are exactly what the model takes: names, types, shapes, finite numbers."""
        wanted = self._wanted
        if arrays.keys() != wanted.keys():
            raise BackendError(
                f"inputs named {', '.join(sorted(map(repr, arrays))) or 'none'}",
                allowed=", ".join(repr(spec.name) for spec in self.inputs),
            )
        for name, (dtype, shape) in wanted.items():
            array = arrays[name]
            if array.dtype != dtype:
                raise _wrong_dtype(name, array, dtype)
            if array.shape != shape:
                raise BackendError(f"input {name!r} has shape {array.shape}", allowed=str(shape))
            if dtype.kind == "f" and not all_finite(array):
                raise BackendError(f"input {name!r} holds NaN or infinity", allowed="finite numbers")

    @cached_property
    def _wanted(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        return {spec.name: (np.dtype(spec.dtype), spec.shape) for spec in self.inputs}


def _wrong_dtype(name: str, array: Array, wanted: np.dtype[Any]) -> BackendError:
    return BackendError(
        f"input {name!r} has dtype {array.dtype.name}",
        allowed=wanted.name,
        remedy=f"use .astype({wanted.name!r})",
    )


def empty_like(spec: TensorSpec) -> Array:
    """A zeroed array of the shape and type of `spec`."""
    return np.zeros(spec.shape, np.dtype(spec.dtype))


LAST = 100  # the rank of a backend that says nothing of it


class Backend(ABC):
    """A library that runs models: how to tell whether it is there, and how to open a file with it.

    Attributes:
        name: unique among the backends.
        formats: of the manifest's artifact formats, those that it opens.
        targets: families of targets ("tensorrt" of "tensorrt:10.3") whose artifacts are its own, beside "any".
        runs_cpu_targets: it also runs what was quantized for this machine's processor.
        on_gpu: preferred before those that are not.
        caller_computes: the thread that calls `Slot.run` is one of the threads that compute.
        rank: the lowest is chosen first where nothing was measured.
        module: the library, as it is imported; `eightfold doctor` looks for it.
    """

    name: str
    formats: tuple[str, ...]
    targets: tuple[str, ...] = ()
    runs_cpu_targets: bool = False
    on_gpu: bool = False
    caller_computes: bool = True
    rank: int = LAST
    module: str = ""

    @abstractmethod
    def absent(self) -> str | None:
        """Reason why it cannot be used on this machine; None if it can."""

    @abstractmethod
    def open(self, path: Path, options: SessionOptions) -> Session:
        """Load a model. Raises BackendError or
        ModelError."""
