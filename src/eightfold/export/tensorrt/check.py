"""An engine is held against the graph it was built from, where it runs on the machine that built it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from eightfold.errors import BackendError, ModelError
from eightfold.export.checks import require_alike
from eightfold.export.half import is_quantized
from eightfold.export.inner.onnx_probe import OnnxProbe
from eightfold.export.onnx_files import input_specs, load_onnx
from eightfold.export.sessions import BACKEND_OF_BUILDER, Run, absent_backend, session_runner
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.trials import runs_of
from eightfold.export.verify import Arrays, Difference, Tolerance, compare, random_inputs, runner, step_from
from eightfold.files import write_bytes
from eightfold.runtime.manifest import Step

# Kernels round in their own ways, to 10 bits of a mantissa even in float32.
TOLERANCE = Tolerance(cosine=0.99)
# Which of two equal scores comes first is a matter of rounding.
RANKING = frozenset({"TopK", "NonMaxSuppression"})


def compared_with_graph(engine: bytes, record: EngineRecord, onnx_path: Path, inputs: Arrays | None) -> Step | None:
    """Run both on the same inputs, random ones when None.

    Returns:
        What was found; None where this machine cannot run the engine, or onnxruntime the graph.

    Raises:
        VerificationError: the answer is another one; the message names the first tensor that is. Engines that rank, and
            INT8 engines whose graph is in float, are compared but not judged.
    """
    if absent_backend(BACKEND_OF_BUILDER[record.builder]):
        return None
    with tempfile.TemporaryDirectory(prefix="eightfold-") as folder:
        path = Path(folder) / "model.engine"
        write_bytes(path, engine)
        record.save(sidecar_path(path))
        try:
            found = list(_differences(_runner(path, record), onnx_path, inputs))
        except (BackendError, ModelError):  # built for other GPUs, or with host code that is not trusted here
            return None
    worst = tuple(each for each, _ in found)
    for each, feeds in found:
        if each.beyond(_tolerance(record, onnx_path)):
            _refuse(each, record, onnx_path, feeds)
    return step_from(worst, name="build", tool=f"{record.builder} {record.builder_version}")


def _runner(path: Path, record: EngineRecord) -> Run:
    backend = BACKEND_OF_BUILDER[record.builder]
    return session_runner(path, backend, name=str(path), remedy="", device=record.options.device)[0]


def _differences(run: Run, onnx_path: Path, inputs: Arrays | None) -> Iterator[tuple[Difference, Arrays]]:
    """Of each output in each run, and what it was run on."""
    reference = runner(onnx_path)
    runs = [random_inputs(onnx_path)] if inputs is None else runs_of(input_specs(load_onnx(onnx_path)), inputs)
    for feeds in runs:
        expected = reference(feeds)
        answers = run(feeds)
        yield from ((each, feeds) for each in compare(expected, {name: answers[name] for name in expected}))


def _tolerance(record: EngineRecord, onnx_path: Path) -> Tolerance:
    model = load_onnx(onnx_path)
    in_float = record.precision == "int8" and not is_quantized(model)
    return Tolerance() if in_float or RANKING & {node.op_type for node in model.graph.node} else TOLERANCE


def _refuse(found: Difference, record: EngineRecord, onnx_path: Path, feeds: Arrays) -> None:
    from eightfold.export.inner.engine_probe import EngineProbe, EngineSource  # it builds engines, too

    probe = EngineProbe(EngineSource(record, onnx_path))
    require_alike((found,), TOLERANCE, step="build", probes=(OnnxProbe(onnx_path), probe), inputs=feeds)
