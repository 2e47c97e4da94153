"""Measuring candidates, and the table that comes out."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field

from eightfold.files import PathLike, sha256_of_file
from eightfold.progress import track
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bench.candidates import Candidate, at_batches, at_sizes, candidates_of, checked_baseline
from eightfold.runtime.bench.interleave import Samples, Schedule, alternate
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.bench.peak_memory import peak_memory_bytes
from eightfold.runtime.bench.prepare import Prepared, prepare_candidate
from eightfold.runtime.bench.timing import Timing, speedup
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.sizes import Size
from eightfold.runtime.devices.devices import DeviceState, describe_device, read_state
from eightfold.versions import runtime_versions


@dataclass(frozen=True)
class BenchOptions:
    """Options of a measurement.

    Attributes:
        schedule: how long.
        session: threads and device.
        memory: measure peak memory too, which costs about half a second per row.
        end_to_end: preprocessing and decoding are part of the time.
        seed: of the inputs.
    """

    schedule: Schedule = field(default_factory=Schedule)
    session: SessionOptions = field(default_factory=SessionOptions)
    memory: bool = True
    end_to_end: bool = False
    seed: int = 0


def bench(
    bundle_or_model: Bundle | PathLike,
    *,
    batches: Sequence[int] | None = None,
    sizes: Sequence[int | Size] | None = None,
    backends: Sequence[str] | None = None,
    seconds: float = 4.0,
    threads: int | None = None,
    baseline: str | None = None,
    end_to_end: bool = False,
    device: str | None = None,
) -> LatencyTable:
    """Measure everything in a bundle that runs on this machine, or one model file.

    Args:
        bundle_or_model: a bundle (opened or its path), or the path of a fixed-size `.onnx` file or an `.engine`.
        batches: batch sizes to measure; all that there are by default.
        sizes: image sizes to measure, one side or (height, width); all that there are by default.
        backends: "onnxruntime", "openvino", "tensorrt"; by default every one that some artifact was made for.
        seconds: timed seconds per row.
        threads: threads of a CPU backend; its own default when None.
        baseline: the candidate that the others of its image size are compared with; the first by default.
        end_to_end: time everything from a decoded 1920x1080 frame to the decoded answer, instead of the model alone.
        device: "ssh://[user@]host[:port]" measures there instead and brings the table back.

    Returns:
        a table; `describe()` prints it, `save(path)` keeps it.

    Raises:
        UsageError: nothing in it runs here, or it has no such batch, size or baseline.
        BackendError: a backend is absent or cannot run a model, or the board cannot be reached.
        BundleError: the bundle is damaged.

    Example:
        >>> table = bench("model.eightfold", batches=[1, 8])  # doctest: +SKIP
        >>> print(table.describe())  # doctest: +SKIP
    """
    if device is not None:
        from eightfold.runtime.bench.remote import bench_on

        path = bundle_or_model.path if isinstance(bundle_or_model, Bundle) else bundle_or_model
        return bench_on(
            device,
            path,
            batches=batches,
            sizes=sizes,
            backends=backends,
            seconds=seconds,
            threads=threads,
            baseline=baseline,
            end_to_end=end_to_end,
        )
    candidates = at_sizes(candidates_of(bundle_or_model, backends), sizes)
    options = BenchOptions(Schedule(seconds=seconds), SessionOptions(threads=threads), end_to_end=end_to_end)
    return compare_latency(at_batches(candidates, batches), baseline=baseline, options=options)


def compare_latency(
    candidates: Sequence[Candidate], *, baseline: str | None = None, options: BenchOptions | None = None
) -> LatencyTable:
    """Measure model files against each other; those of one batch size take turns in one run.

    Args:
        candidates: what to measure. Names are unique within a batch size.
        baseline: the name that speed-ups refer to, of networks with images of its size; the first candidate's by
            default.
        options: how long and with which threads.
    """
    options = options or BenchOptions()
    baseline = checked_baseline(candidates, baseline)
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


def _measure_batch(candidates: Sequence[Candidate], baseline: str, options: BenchOptions) -> list[LatencyRow]:
    memory = {each.name: _memory(each, options) for each in candidates}
    ready = {
        each.name: prepare_candidate(each, options.session, options.end_to_end, options.seed) for each in candidates
    }
    before = read_state()
    samples = alternate({name: each.call for name, each in ready.items()}, options.schedule)
    states = (before, read_state())
    rows = [_row(ready[name], samples[name], states, memory[name]) for name in ready]
    reference = ready.get(baseline)
    if reference is None:
        return rows
    like = {name for name, each in ready.items() if each.candidate.size == reference.candidate.size} - {baseline}
    return [_with_speedup(row, samples[row.name], samples[baseline]) if row.name in like else row for row in rows]


def _with_speedup(row: LatencyRow, samples: Samples, reference: Samples) -> LatencyRow:
    return row.model_copy(update={"speedup": speedup(reference.times_s, samples.times_s)})


def _memory(candidate: Candidate, options: BenchOptions) -> int | None:
    if not options.memory:
        return None
    return peak_memory_bytes(candidate.path, candidate.backend, options.session.threads)


def _row(ready: Prepared, samples: Samples, states: tuple[DeviceState, DeviceState], memory: int | None) -> LatencyRow:
    candidate, session = ready.candidate, ready.session
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
        scope=ready.scope,
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
