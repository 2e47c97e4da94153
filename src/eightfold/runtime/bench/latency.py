"""`LatencyTable`: measured times, each with what is needed to trust it."""

from __future__ import annotations

import statistics
from typing import ClassVar

from pydantic import Field

from eightfold.errors import BackendError, EightfoldError
from eightfold.runtime.backends.base import Scope
from eightfold.runtime.bench.modes import Mode
from eightfold.runtime.bench.timing import Interval, Timing, for_other_runs, interval_over_starts
from eightfold.runtime.bundle.manifest import Metric, Precision
from eightfold.runtime.devices.devices import Device, DeviceState
from eightfold.text_table import folded_table, wrapped
from eightfold.values import Frozen, Value

HEAD = ("batch", "candidate", "p50 ms", "p90 ms", "p99 ms", "images/s", "speed-up [95%]", "memory", "")


# What a system's own housekeeping uses at most.
QUIET_CORES = 0.1
# A call that takes so many times the median was not computing all the time.
STALL = 5.0
MARKS = {
    "!": "the hardware slowed itself down during this row",
    "^": "the clock moved by more than 5% during this row",
    "~": "not settled after the warm-up",
    "|": f"stalls: one call in ten took more than {STALL:g} times the median, as where threads wait for a core",
    "#": "the times have two values and no single one",
    "*": "other work kept cores busy meanwhile",
}


class LatencyRow(Frozen):
    """One candidate at one batch size.

    `scope` says what was timed: the model alone on bound buffers, with copies in and out, or from decoded image to
    decoded answer.
    """

    name: str = Field(description="what tells candidates apart: 'baseline-fp32'")
    variant: str = ""
    artifact: str = Field(default="", description="id in the bundle")
    sha256: str = Field(default="", description="of the file that ran")
    metrics: tuple[Metric, ...] = ()
    backend: str
    backend_version: str
    provider: str = ""
    precision: Precision
    layers: dict[str, int] = Field(default_factory=dict, description="precision -> number of layers")
    batch: int = Field(ge=1)
    input_shapes: dict[str, tuple[int, ...]]
    scope: Scope
    mode: Mode = Field(default="latency", description="see `MODES`")
    threads: int | None = Field(default=None, description="intra-op threads; None where the backend has its own rule")
    cores: tuple[int, ...] = Field(default=(), description="logical cores of the threads; empty: the kernel's choice")
    pinned: bool = Field(default=False, description="each thread has one of the cores to itself")
    threads_tried_ms: dict[str, float] = Field(
        default={}, description="threads -> p50 in the sweep that chose the number of threads"
    )
    warmup_runs: int
    warmup_s: float
    warmup_stable: bool
    rounds: int
    timing: Timing
    start_p50_ms: tuple[float, ...] = Field(
        default=(), description="median of each start of the program, of uninterrupted calls where there are enough"
    )
    two_values_ms: tuple[float, float] | None = Field(
        default=None, description="where starts or rounds fall into two groups: the value of each"
    )
    interrupted: float | None = Field(
        default=None, description="share of calls in which the kernel took a core from a thread; not in the speed-up"
    )
    clocks_moved: bool = Field(default=False, description="the core's clock moved by more than 5% during a start")
    speedup: Interval | None = Field(default=None, description="against the table's baseline at this batch")
    peak_memory_bytes: int | None = Field(
        default=None, description="resident memory that loading and three runs added in a process of its own"
    )
    before: DeviceState
    after: DeviceState
    most_others_cores: float | None = Field(
        default=None, description="cores that other work kept busy in the start where these were most"
    )
    notes: tuple[str, ...] = ()

    @property
    def images_per_s(self) -> float:
        """Throughput in images per second."""
        return self.batch * self.timing.runs / self.timing.duration_s

    @property
    def slowed_down(self) -> bool:
        """True if the hardware throttled while this row was measured, as far as it tells."""
        return (self.after.slowdowns or 0) > (self.before.slowdowns or 0)

    @property
    def others_cores(self) -> float:
        """Cores that other work kept busy meanwhile, in the worst start; 0 where it is unknown."""
        # Rows of other programs have one start alone, and what lies between `before` and `after` is all that they tell.
        known = self.most_others_cores
        return (self.after.others_since(self.before) if known is None else known) or 0.0

    @property
    def disturbed(self) -> bool:
        """True if other work kept cores busy meanwhile, as far as the kernel tells."""
        return self.others_cores > QUIET_CORES

    @property
    def stalled(self) -> bool:
        """True if one call in ten or more waited for the kernel's scheduler, or for whatever else takes so long."""
        timing = self.timing
        return timing.p50_ms is not None and timing.p90_ms is not None and timing.p90_ms > STALL * timing.p50_ms

    @property
    def marks(self) -> str:
        """Signs of what makes this row doubtful; `MARKS` and the notes of a table explain them."""
        doubts = {
            "!": self.slowed_down,
            "^": self.clocks_moved,
            "~": not self.warmup_stable,
            "|": self.stalled,
            "#": self.two_values_ms is not None,
            "*": self.disturbed,
        }
        return "".join(mark for mark, doubtful in doubts.items() if doubtful)

    def two_values_note(self) -> str:
        """The two values in words; for rows that have them."""
        low, high = self.two_values_ms or (0.0, 0.0)
        return f"#: {self.name}, batch {self.batch} has two values, {_ms(low)} and {_ms(high)} ms, and no single one"

    def sweep_note(self) -> str:
        """The result of the sweep over threads in words; for rows that have one."""
        tried = ", ".join(f"{threads}: {_ms(ms)}" for threads, ms in self.threads_tried_ms.items())
        return f"{self.name}, batch {self.batch} is fastest with threads: {self.threads} (ms by threads: {tried})"

    @property
    def usual_ms(self) -> float:
        """Of a call: the median of the starts' medians, which a stall does not move; the mean where starts are not told
        apart."""
        return statistics.median(self.start_p50_ms) if self.start_p50_ms else self.timing.mean_ms

    @property
    def p50_interval_ms(self) -> Interval | None:
        """Of the median over starts; None with a single start."""
        return for_other_runs(interval_over_starts(self.start_p50_ms)) if len(self.start_p50_ms) > 1 else None


class MissingRow(Frozen):
    """A candidate that was not measured at a batch size, and why."""

    name: str
    batch: int = Field(ge=1)
    reason: str = Field(description="'does not fit: needs more than N MiB', or what the backend raised")


class LatencyTable(Value):
    """Rows measured on one device in one run. Only rows of one table may be compared."""

    kind: ClassVar[str] = "latency table"
    error: ClassVar[type[EightfoldError]] = BackendError

    device: Device
    versions: dict[str, str]
    measured_at: str = Field(description="UTC, ISO 8601")
    baseline: str | None = None
    seconds_per_row: float
    rows: tuple[LatencyRow, ...]
    missing: tuple[MissingRow, ...] = Field(default=(), description="what does not fit or does not run")

    def row(self, name: str, batch: int) -> LatencyRow:
        """The row of that name and batch. Raises BackendError."""
        for row in self.rows:
            if (row.name, row.batch) == (name, batch):
                return row
        raise BackendError(
            f"the table has no row {name!r} at batch {batch}",
            allowed=", ".join(f"{row.name} b{row.batch}" for row in self.rows),
        )

    @property
    def others_cores(self) -> float:
        """The most cores that other work kept busy during a row, on average over it; 0 where it is unknown."""
        return max((row.others_cores for row in self.rows), default=0.0)

    def disturbance(self) -> str:
        """A warning in words; empty where the machine was quiet."""
        if self.others_cores <= QUIET_CORES:
            return ""
        of = f" of {self.device.cpu.cores}" if self.device.cpu.cores else ""
        return (
            f"other work kept up to {self.others_cores:.1f}{of} cores busy meanwhile; measure again on a quiet machine"
        )

    def is_of(self, device: Device) -> bool:
        """True if it was measured on a machine like `device`: the same processor, cores, board and GPUs."""
        return device_identity(self.device) == device_identity(device)

    def describe(self, width: int | None = None) -> str:
        """The table as text; with `width`, in lines of about so many characters at most."""
        lines = [HEAD, *self.cells()[1]] if self.rows else []
        table = folded_table(lines, left={1, 8}, title=1, width=width) if lines else []
        table += [
            text for row in self.missing for text in wrapped(f"{row.name}, batch {row.batch}: {row.reason}", width)
        ]
        context, notes = (
            [text for line in part for text in wrapped(line, width)] for part in (self.context(), self.notes())
        )
        return "\n".join([*context, *table, *notes])

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings and rows as they are printed."""
        return HEAD, [_cells(row) for row in self.rows]

    def context(self) -> list[str]:
        """The machine; back ends, threads and scope."""
        backends = sorted({f"{row.backend} {row.backend_version}" for row in self.rows})
        scopes = sorted({row.scope for row in self.rows})
        starts = sorted({len(row.start_p50_ms) for row in self.rows if len(row.start_p50_ms) > 1})
        how = f"{', '.join(backends)}; threads: {self._threads()}; timed: {', '.join(scopes)}"
        return [self.device.line(), how + "".join(f"; {count} starts" for count in starts)]

    def _threads(self) -> str:
        threads = sorted({row.threads for row in self.rows if row.threads is not None})
        cores = sorted({core for row in self.rows if row.pinned for core in row.cores})
        pinned = f" pinned to core{'s' * (len(cores) > 1)} {' '.join(map(str, cores))}" if cores else ""
        return (", ".join(map(str, threads)) or "default") + pinned

    def notes(self) -> list[str]:
        """Explanations of the marks of rows, and what else is to be known of them."""
        notes = {note for row in self.rows for note in row.notes}
        if any(row.timing.p99_ms is None for row in self.rows):
            notes.add("-: too few runs for this percentile; give more --seconds")
        # Tables say which two values, and how many cores.
        general = {mark: meaning for mark, meaning in MARKS.items() if mark not in "#*"}
        notes |= {
            f"{mark}: {meaning}" for mark, meaning in general.items() if any(mark in row.marks for row in self.rows)
        }
        notes |= {row.two_values_note() for row in self.rows if row.two_values_ms}
        notes |= {row.sweep_note() for row in self.rows if row.threads_tried_ms}
        if self.others_cores > QUIET_CORES:
            notes.add(f"*: {self.disturbance()}")
        return sorted(notes)


def device_identity(device: Device) -> tuple[object, ...]:
    """The processor, its cores, the board and the GPUs: where these differ, times are not comparable."""
    cpu = device.cpu
    return cpu.model, cpu.cores, cpu.quota_cores, device.board, tuple(gpu.name for gpu in device.gpus)


def _cells(row: LatencyRow) -> tuple[str, ...]:
    timing = row.timing
    memory = "-" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:.0f} MiB"
    speed = str(row.speedup) if row.speedup else "-"
    return (
        str(row.batch),
        row.name,
        *(_ms(value) for value in (timing.p50_ms, timing.p90_ms, timing.p99_ms)),
        f"{row.images_per_s:.0f}",
        speed,
        memory,
        row.marks,
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 100 else f"{value:.1f}"
