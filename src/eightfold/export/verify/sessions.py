"""Files that one of the runtime's back ends runs, as functions of arrays."""

from __future__ import annotations

from pathlib import Path

from eightfold.arrays import Arrays
from eightfold.errors import BackendError
from eightfold.export.verify.verify import Run
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends import BACKENDS
from eightfold.runtime.backends.base import SessionOptions

BACKEND_OF_BUILDER = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


def absent_backend(name: str) -> str | None:
    """Reason why a back end cannot be used here; None if it can."""
    return BACKENDS[name].absent() if name in BACKENDS else "eightfold has no such back end"


def session_runner(
    path: Path, backend: str, *, name: str, remedy: str, device: int = 0
) -> tuple[Run, tuple[TensorSpec, ...]]:
    """A function from inputs to outputs by name, and what it takes.

    Raises:
        BackendError: the back end cannot be used here.
    """
    reason = absent_backend(backend)
    if reason:
        raise BackendError(
            f"{name} runs with {backend} only, and that cannot be used here: {reason}",
            allowed="artifacts that this machine can run",
            remedy=remedy,
        )
    session = BACKENDS[backend].open(path, SessionOptions(device=device))

    def run(inputs: Arrays) -> Arrays:
        session.check(dict(inputs))
        slot = session.new_slot()
        slot.run_on(dict(inputs))
        return {key: array.copy() for key, array in slot.outputs.items()}

    return run, session.inputs
