"""Measuring candidates, and the table that comes out."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from eightfold.errors import BackendError
from eightfold.files import PathLike
from eightfold.progress import track
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bench.candidates import Candidate, checked_baseline
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable, MissingRow
from eightfold.runtime.bench.modes import MODES, Mode, require_mode
from eightfold.runtime.bench.peak_memory import estimated_bytes, probe_memory, refusal
from eightfold.runtime.bench.rows import row_of, with_speedup
from eightfold.runtime.bench.start import StartOptions
from eightfold.runtime.bench.starts import measure_starts
from eightfold.runtime.bench.sweep import SWEEP, Swept, Threads, sweep_threads
from eightfold.runtime.devices.devices import describe_device
from eightfold.versions import runtime_versions


@dataclass(frozen=True)
class BenchOptions:
    """Options of a measurement.

    Attributes:
        schedule: how long.
        session: threads and device.
        memory: measure peak memory first, which costs about half a second per row; a batch that does not fit, is killed
            or raises there becomes a row of `missing`.
        save: file that the table is written to after each batch size.
        end_to_end: preprocessing and decoding are part of the time.
        seed: of the inputs.
        pin: threads to cores of their own; see `StartOptions`.
        sweep: measure each candidate with the number of threads that is fastest for it.
        mode: see `MODES`.
    """

    schedule: Schedule = field(default_factory=Schedule)
    session: SessionOptions = field(default_factory=SessionOptions)
    memory: bool = True
    end_to_end: bool = False
    seed: int = 0
    save: PathLike | None = None
    pin: bool = True
    sweep: bool = False
    mode: Mode = "latency"

    def __post_init__(self) -> None:
        require_mode(self.mode)

    def with_threads(self, threads: Threads) -> BenchOptions:
        """These options with a number of threads, or with a sweep over them."""
        if threads == SWEEP:
            return replace(self, sweep=True)
        return replace(self, session=replace(self.session, threads=threads))

    def of_starts(self) -> StartOptions:
        """The part that decides how starts are made."""
        return StartOptions(
            self.schedule, self.session, self.pin, mode=self.mode, end_to_end=self.end_to_end, seed=self.seed
        )


class BenchInterrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a measurement. `table` has the rows of the batches that were done."""

    def __init__(self, table: LatencyTable) -> None:
        super().__init__()
        self.table = table


def compare_latency(
    candidates: Sequence[Candidate],
    *,
    baseline: str | None = None,
    options: BenchOptions | None = None,
    absent: Sequence[MissingRow] = (),
) -> LatencyTable:
    """Measure model files against each other; those of one batch size take turns in one run.

    Args:
        candidates: what to measure. Names are unique within a batch size.
        baseline: the name that speed-ups refer to, of networks with images of its size; the first candidate's by
            default.
        options: how long and with which threads.
        absent: what was asked for and is none of the candidates, for the table to say.

    Raises:
        BenchInterrupted: on Ctrl-C; it has the table so far.
    """
    options = options or BenchOptions()
    baseline = checked_baseline(candidates, baseline)
    batches = sorted({candidate.batch for candidate in candidates})
    table = LatencyTable(
        device=describe_device(),
        versions=runtime_versions(),
        measured_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        baseline=baseline,
        seconds_per_row=options.schedule.seconds,
        rows=(),
        missing=tuple(absent),
    )
    memory = _Memory(options)
    for batch in track(batches, "measuring batch sizes"):
        try:
            fitting, missing = memory.fitting([each for each in candidates if each.batch == batch])
            rows = _measure_batch(fitting, baseline, options, memory) if fitting else []
        except KeyboardInterrupt:
            raise BenchInterrupted(table) from None
        table = table.model_copy(update={"rows": (*table.rows, *rows), "missing": (*table.missing, *missing)})
        if options.save is not None:
            table.save(options.save)
    if not table.rows:
        first = table.missing[0]
        raise BackendError(f"{first.name} at batch {first.batch}: {first.reason}", allowed="a batch that fits and runs")
    return table


class _Memory:
    """Memory of candidates, measured one by one in processes of their own, and what does not fit."""

    def __init__(self, options: BenchOptions) -> None:
        self._options, self._known = options, defaultdict[str, list[tuple[int, int]]](list)
        self.peak: dict[tuple[str, int], int | None] = {}

    def fitting(self, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[MissingRow]]:
        """The candidates that can be measured, and a row for each that cannot."""
        if not self._options.memory:
            return list(candidates), []
        fitting, missing = [], []
        for each in candidates:
            reason = self._probe(each)
            if reason:
                missing.append(MissingRow(name=each.name, batch=each.batch, reason=reason))
            else:
                fitting.append(each)
        return fitting, missing

    def _probe(self, candidate: Candidate) -> str:
        known = self._known[candidate.name]
        if reason := refusal(estimated_bytes(known, candidate.batch)):
            return reason
        found = probe_memory(candidate.path, candidate.backend, self._options.session.threads)
        self.peak[candidate.name, candidate.batch] = found.peak_bytes
        if found.peak_bytes is not None:
            known.append((candidate.batch, found.peak_bytes))
        return found.failed


def _measure_batch(
    candidates: Sequence[Candidate], baseline: str, options: BenchOptions, memory: _Memory
) -> list[LatencyRow]:
    swept = sweep_threads(candidates, options.of_starts()) if options.sweep else [Swept(each) for each in candidates]
    starts = measure_starts([each.candidate for each in swept], options.of_starts())
    peaks = [memory.peak.get((each.candidate.name, each.candidate.batch)) for each in swept]
    rows = [row_of(each, starts, peak, options.of_starts()) for each, peak in zip(swept, peaks, strict=True)]
    reference = next((each for each in candidates if each.name == baseline), None)
    if reference is None or MODES[options.mode].alone:
        return rows
    like = {each.name for each in candidates if each.size == reference.size} - {baseline}
    return [with_speedup(row, starts, baseline) if row.name in like else row for row in rows]
