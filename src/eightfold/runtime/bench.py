"""Measuring candidates: which files to run, and the table that comes out."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eightfold.errors import BackendError, UsageError
from eightfold.files import PathLike, sha256_of_file
from eightfold.progress import track
from eightfold.runtime.alternate import Samples, Schedule, alternate
from eightfold.runtime.backends import BACKENDS, backend_named, open_session, usable_backends
from eightfold.runtime.backends.base import Array, Session, SessionOptions, Slot
from eightfold.runtime.bundle import Bundle
from eightfold.runtime.devices import DeviceState, describe_device, read_state
from eightfold.runtime.latency import LatencyRow, LatencyTable
from eightfold.runtime.manifest import Artifact, Metric, Precision, TensorSpec
from eightfold.runtime.peak_memory import peak_memory_bytes
from eightfold.runtime.targets import default_backends, runs_here
from eightfold.runtime.timing import Timing, speedup
from eightfold.runtime.versions import runtime_versions


@dataclass(frozen=True)
class Candidate:
    """One model file to measure.

    Attributes:
        name: what tells it apart from the others at its batch size; the same name at every batch makes a curve.
        path: the file; its shapes are fixed.
        batch: images per call.
    """

    name: str
    path: Path
    batch: int
    precision: Precision = "fp32"
    backend: str = "onnxruntime"
    variant: str = ""
    artifact: str = ""
    sha256: str = ""
    metrics: tuple[Metric, ...] = ()
    layers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchOptions:
    """How to measure. `memory` costs about half a second per row."""

    schedule: Schedule = field(default_factory=Schedule)
    session: SessionOptions = field(default_factory=SessionOptions)
    memory: bool = True
    seed: int = 0


def bench(
    bundle_or_model: Bundle | PathLike,
    *,
    batches: Sequence[int] | None = None,
    backends: Sequence[str] | None = None,
    seconds: float = 4.0,
    threads: int | None = None,
    baseline: str | None = None,
    device: str | None = None,
) -> LatencyTable:
    """Measure everything in a bundle that runs on this machine, or one ONNX file.

    Args:
        bundle_or_model: a bundle (opened or its path), or the path of a fixed-size `.onnx` file.
        batches: batch sizes to measure; all that there are by default.
        backends: "onnxruntime", "openvino", "tensorrt"; by default every one that some artifact was made for.
        seconds: timed seconds per row.
        threads: threads of a CPU backend; its own default when None.
        baseline: the candidate that the others are compared with; the first by default.
        device: "ssh://[user@]host[:port]" measures there instead and brings the table back.

    Returns:
        a table; `describe()` prints it, `save(path)` keeps it.

    Example:
        >>> table = bench("model.eightfold", batches=[1, 8])  # doctest: +SKIP
        >>> print(table.describe())  # doctest: +SKIP
    """
    if device is not None:
        from eightfold.runtime.remote import bench_on

        path = bundle_or_model.path if isinstance(bundle_or_model, Bundle) else bundle_or_model
        return bench_on(
            device, path, batches=batches, backends=backends, seconds=seconds, threads=threads, baseline=baseline
        )
    candidates = _candidates(bundle_or_model, backends)
    options = BenchOptions(schedule=Schedule(seconds=seconds), session=SessionOptions(threads=threads))
    return compare_latency(_at_batches(candidates, batches), baseline=baseline, options=options)


def compare_latency(
    candidates: Sequence[Candidate], *, baseline: str | None = None, options: BenchOptions | None = None
) -> LatencyTable:
    """Measure model files against each other; those of one batch size take turns in one run.

    Args:
        candidates: what to measure. Names are unique within a batch size.
        baseline: the name that speed-ups refer to; the first candidate's by default.
        options: how long and with which threads.
    """
    options = options or BenchOptions()
    baseline = _checked_baseline(candidates, baseline)
    batches = sorted({candidate.batch for candidate in candidates})
    rows: list[LatencyRow] = []
    for batch in track(batches, "measuring batch sizes"):
        rows += _measure_batch([each for each in candidates if each.batch == batch], baseline, options)
    return LatencyTable(
        device=describe_device(),
        versions=runtime_versions(),
        measured_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        baseline=baseline,
        seconds_per_row=options.schedule.seconds,
        rows=tuple(rows),
    )


def candidates_of_bundle(bundle: Bundle, backends: Iterable[str]) -> list[Candidate]:
    """Every artifact that one of `backends` can run on this machine, in the manifest's order."""
    return [
        _candidate(bundle, artifact, backend)
        for artifact in bundle.manifest.artifacts
        for backend in backends
        if runs_here(artifact, backend)
    ]


def _candidate(bundle: Bundle, artifact: Artifact, backend: str) -> Candidate:
    suffix = "" if backend == "onnxruntime" else f" {backend}"
    return Candidate(
        name=f"{artifact.variant} {artifact.precision}{suffix}",
        path=bundle.artifact_path(artifact),
        batch=artifact.batch,
        precision=artifact.precision,
        backend=backend,
        variant=artifact.variant,
        artifact=artifact.id,
        sha256=bundle.manifest.files[artifact.path].sha256,
        metrics=artifact.metrics,
        layers=artifact.layers,
    )


def _candidates(source: Bundle | PathLike, backends: Sequence[str] | None) -> list[Candidate]:
    for name in backends or ():
        backend_named(name)
    if not isinstance(source, Bundle) and Path(source).suffix == ".onnx":
        return _candidates_of_file(Path(source), backends or ["onnxruntime"])
    bundle = source if isinstance(source, Bundle) else Bundle.open(source)
    return candidates_of_bundle(bundle, default_backends(bundle.manifest.artifacts) if backends is None else backends)


def _candidates_of_file(path: Path, backends: Sequence[str]) -> list[Candidate]:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}", allowed="a bundle or a fixed-size .onnx file")
    return [_candidate_of_file(path, backend) for backend in backends if "onnx" in BACKENDS[backend].formats]


def _candidate_of_file(path: Path, backend: str) -> Candidate:
    shape = open_session(path, backend).inputs[0].shape
    return Candidate(f"{path.stem} {backend}", path, batch=shape[0] if shape else 1, backend=backend)


def _at_batches(candidates: Sequence[Candidate], batches: Sequence[int] | None) -> list[Candidate]:
    if batches is None:
        return list(candidates)
    present = sorted({candidate.batch for candidate in candidates})
    for batch in batches:
        if batch not in present:
            raise UsageError(f"batch {batch} is not in it", allowed=", ".join(map(str, present)))
    return [candidate for candidate in candidates if candidate.batch in batches]


def _checked_baseline(candidates: Sequence[Candidate], baseline: str | None) -> str:
    if not candidates:
        raise BackendError(
            "nothing here can run on this machine",
            allowed=f"artifacts for {', '.join(usable_backends()) or 'an installed backend'}",
            remedy="run: eightfold doctor",
        )
    names = list(dict.fromkeys(candidate.name for candidate in candidates))
    if len({(each.name, each.batch) for each in candidates}) < len(candidates):
        raise UsageError("two candidates have one name and batch", allowed="each pair once")
    if baseline is not None and baseline not in names:
        raise UsageError(f"no candidate is named {baseline!r}", allowed=", ".join(names))
    return baseline or names[0]


def _measure_batch(candidates: Sequence[Candidate], baseline: str, options: BenchOptions) -> list[LatencyRow]:
    memory = {each.name: _memory(each, options) for each in candidates}
    sessions = {each.name: open_session(each.path, each.backend, options.session) for each in candidates}
    slots = {name: _filled(session, options.seed) for name, session in sessions.items()}
    before = read_state()
    samples = alternate({name: slot.run for name, slot in slots.items()}, options.schedule)
    after = read_state()
    reference = samples.get(baseline)
    return [
        _with_speedup(
            _row(each, sessions[each.name], samples[each.name], (before, after), memory[each.name]),
            samples[each.name],
            None if each.name == baseline else reference,
        )
        for each in candidates
    ]


def _with_speedup(row: LatencyRow, samples: Samples, reference: Samples | None) -> LatencyRow:
    if reference is None:
        return row
    return row.model_copy(update={"speedup": speedup(reference.times_s, samples.times_s)})


def _memory(candidate: Candidate, options: BenchOptions) -> int | None:
    if not options.memory:
        return None
    return peak_memory_bytes(candidate.path, candidate.backend, options.session.threads)


def _row(
    candidate: Candidate,
    session: Session,
    samples: Samples,
    states: tuple[DeviceState, DeviceState],
    memory: int | None,
) -> LatencyRow:
    return LatencyRow(
        name=candidate.name,
        variant=candidate.variant,
        artifact=candidate.artifact,
        sha256=candidate.sha256 or sha256_of_file(candidate.path),
        metrics=candidate.metrics,
        backend=session.backend,
        backend_version=session.version,
        provider=session.provider,
        precision=candidate.precision,
        layers=dict(candidate.layers),
        batch=candidate.batch,
        input_shapes={spec.name: spec.shape for spec in session.inputs},
        scope=session.scope,
        threads=session.threads,
        warmup_runs=samples.warm_up.runs,
        warmup_s=samples.warm_up.seconds,
        warmup_stable=samples.warm_up.stable,
        rounds=len(samples.times_s),
        timing=Timing.of(samples.times_s),
        peak_memory_bytes=memory,
        before=states[0],
        after=states[1],
    )


def _filled(session: Session, seed: int) -> Slot:
    """A slot whose inputs hold noise: zeros can be faster than any picture (denormals, sparsity, power)."""
    random = np.random.default_rng(seed)
    slot = session.new_slot()
    for spec in session.inputs:
        np.copyto(slot.inputs[spec.name], _noise(spec, random))
    return slot


def _noise(spec: TensorSpec, random: np.random.Generator) -> Array:
    if spec.dtype.startswith("float"):
        return np.asarray(random.standard_normal(spec.shape)).astype(spec.dtype)
    high = 2 if spec.dtype == "bool" else 100
    return np.asarray(random.integers(0, high, spec.shape)).astype(spec.dtype)
