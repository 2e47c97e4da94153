"""Compares an engine with the graph it was built from, if the engine runs on this machine."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path

from eightfold.arrays import Arrays
from eightfold.errors import BackendError, BuildError, ModelError
from eightfold.export.tensorrt.built_engine import BuiltEngine
from eightfold.export.tensorrt.engine_probe import EngineProbe, EngineSource
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.verify.intermediates.probe import Intermediates, Probe, See
from eightfold.export.verify.precision_check import ComparedNetwork, verify_precision
from eightfold.export.verify.sessions import BACKEND_OF_BUILDER, absent_backend, session_runner
from eightfold.export.verify.test_inputs import RANDOM, InputSets, input_sets_of, random_inputs_of
from eightfold.export.verify.verify import Tolerance
from eightfold.extras import installed
from eightfold.files import write_bytes
from eightfold.runtime.bundle.manifest import Step
from eightfold.scratch import scratch_folder

# Kernels round in their own ways, to 10 bits of a mantissa even in float32.
TOLERANCE = Tolerance(cosine=0.99)
# Which of two equal scores comes first is a matter of rounding.
RANKING = frozenset({"TopK", "NonMaxSuppression"})


def compared_with_graph(engine: BuiltEngine, onnx_path: Path, inputs: Arrays | None) -> Step | None:
    """Run both on the same inputs: real ones and extremes, or random ones when None.

    Returns:
        What was found; None where this machine cannot run the engine, or has no onnxruntime that runs the graph.

    Raises:
        VerificationError: the answer is another one; the message names the first tensor that is. Engines that rank, and
            INT8 engines whose graph is in float, are compared but not judged.
    """
    record = engine.record
    if absent_backend(BACKEND_OF_BUILDER[record.builder]) or not installed("onnxruntime"):
        return None
    with scratch_folder() as folder:
        path = folder / "model.engine"
        write_bytes(path, engine.content)
        record.save(sidecar_path(path))
        try:
            step = _verified(path, engine, onnx_path, inputs)
        except (BackendError, ModelError):  # built for other GPUs, or with host code that is not trusted here
            return None
    return step.model_copy(update={"tool": f"{record.builder} {record.builder_version}"})


def _verified(path: Path, engine: BuiltEngine, onnx_path: Path, inputs: Arrays | None) -> Step:
    record = engine.record
    backend = BACKEND_OF_BUILDER[record.builder]
    run, _ = session_runner(path, backend, name=str(path), remedy="", device=record.options.device)
    seen = ComparedNetwork(run, _LateProbe(record, onnx_path))
    return verify_precision(
        ComparedNetwork.of(onnx_path),
        seen,
        _input_sets(record, inputs),
        step="build",
        tolerance=_tolerance(engine),
    )


def _input_sets(record: EngineRecord, inputs: Arrays | None) -> InputSets:
    """Random values alone if there are no images: no layer was then kept in float for extremes to stay finite."""
    if inputs is None:
        return {RANDOM: [random_inputs_of(record.inputs)]}
    return input_sets_of(record.inputs, inputs)


def _tolerance(engine: BuiltEngine) -> Tolerance:
    in_float = engine.record.precision == "int8" and "QuantizeLinear" not in engine.operators
    return Tolerance() if in_float or RANKING & engine.operators else TOLERANCE


class _LateProbe:
    """Builds engines with intermediate outputs on first use."""

    def __init__(self, record: EngineRecord, onnx_path: Path) -> None:
        self._record, self._onnx_path = record, onnx_path

    @functools.cached_property
    def _probe(self) -> Probe:
        return EngineProbe(EngineSource(self._record, self._onnx_path))

    def watch(self, inputs: Arrays, see: See, wanted: Collection[int] | None = None) -> Intermediates:
        try:
            return self._probe.watch(inputs, see, wanted)
        except BuildError as error:  # that the engine answers otherwise is the news
            raise ModelError(str(error)) from error
