"""One start of a measurement: opens the candidates, lets them take turns, closes them.

Run as a program, `python -m eightfold.runtime.bench.start FOLDER`, it is a start in a process of its own: it reads
request.json there, and writes start.json and a .npy file with the times of each candidate.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from eightfold.errors import EightfoldError
from eightfold.runtime.backends import BACKENDS
from eightfold.runtime.backends.base import Scope, SessionOptions
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.clocks import ClockWatch
from eightfold.runtime.bench.interleave import Samples, Schedule, WarmUp
from eightfold.runtime.bench.modes import Mode, measure
from eightfold.runtime.bench.peak_memory import MODULES, UNKNOWN_BACKEND
from eightfold.runtime.bench.placement import pin_thread, restored_affinity
from eightfold.runtime.bench.prepare import PreparedCandidate, prepare_candidate
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Precision
from eightfold.runtime.devices.devices import DeviceState, read_state
from eightfold.values import Frozen, Value

REQUEST, RESULT = "request.json", "start.json"
FAILED = 4  # exit code; the reason is the last line of stderr


@dataclass(frozen=True)
class StartOptions:
    """Options of the starts of a measurement.

    Attributes:
        schedule: of all starts together, or of one.
        session: threads and device. Without threads, backends on a CPU get one for each physical core, or a single one
            where several requests are in flight.
        pin: threads to cores of their own, instead of where the kernel puts them at each start.
        repeats: further starts that may take the place of disturbed ones, as a share of the starts.
        mode: see `MODES`.
        end_to_end: preprocessing and decoding are part of the time.
        seed: of the inputs.
    """

    schedule: Schedule = field(default_factory=Schedule)
    session: SessionOptions = field(default_factory=SessionOptions)
    pin: bool = True
    repeats: float = 0.5
    mode: Mode = "latency"
    end_to_end: bool = False
    seed: int = 0


class OpenedCandidate(Frozen):
    """A candidate as its backend opened it. `cores` are those of its threads; `pinned` if each has one to itself."""

    backend: str
    version: str
    provider: str
    threads: int | None
    cores: tuple[int, ...]
    pinned: bool
    input_shapes: dict[str, tuple[int, ...]]
    scope: Scope


@dataclass(frozen=True)
class Start:
    """Times and facts of one start, by the candidates' names; `clocks_mhz` of the first core, after each round."""

    samples: dict[str, Samples]
    opened: dict[str, OpenedCandidate]
    before: DeviceState
    after: DeviceState
    clocks_mhz: tuple[float, ...] = ()


class _Wanted(Frozen):
    """The part of a candidate that another process needs."""

    name: str
    path: str
    batch: int
    precision: Precision
    backend: str
    artifact: str
    threads: int | None
    bundle: str | None

    @classmethod
    def of(cls, candidate: Candidate) -> _Wanted:
        bundle = None if candidate.bundle is None else str(candidate.bundle.path.absolute())
        names = ("name", "batch", "precision", "backend", "artifact", "threads")
        return cls(
            path=str(candidate.path.absolute()), bundle=bundle, **{name: getattr(candidate, name) for name in names}
        )

    def candidate(self) -> Candidate:
        values: dict[str, Any] = self.model_dump() | {"path": Path(self.path)}
        return Candidate(**values | {"bundle": None if self.bundle is None else Bundle.open(self.bundle)})


class StartRequest(Value):
    """A start for another process to make."""

    kind: ClassVar[str] = "start of a measurement"
    error: ClassVar[type[EightfoldError]] = EightfoldError

    candidates: tuple[_Wanted, ...]
    schedule: dict[str, Any]
    mode: Mode
    session: dict[str, Any]
    end_to_end: bool
    seed: int

    @classmethod
    def of(cls, candidates: Sequence[Candidate], options: StartOptions) -> StartRequest:
        """The request for the arguments of `run_start`."""
        return cls(
            candidates=tuple(map(_Wanted.of, candidates)),
            schedule=dataclasses.asdict(options.schedule),
            session=dataclasses.asdict(options.session),
            mode=options.mode,
            end_to_end=options.end_to_end,
            seed=options.seed,
        )

    @property
    def options(self) -> StartOptions:
        """The options that it was made of."""
        session = SessionOptions(**self.session | {"cores": tuple(self.session["cores"])})
        return StartOptions(
            Schedule(**self.schedule), session, mode=self.mode, end_to_end=self.end_to_end, seed=self.seed
        )


class _Result(Value):
    kind: ClassVar[str] = "result of a start"
    error: ClassVar[type[EightfoldError]] = EightfoldError

    names: tuple[str, ...]  # in the order of the files; JSON's keys are sorted
    opened: dict[str, OpenedCandidate]
    warm_ups: dict[str, dict[str, Any]]
    before: DeviceState
    after: DeviceState
    clocks_mhz: tuple[float, ...]


def run_start(candidates: Sequence[Candidate], options: StartOptions) -> Start:
    """Measure the candidates in this process.

    Args:
        candidates: their names are unique.
        options: the schedule is that of this start; threads and cores are for candidates without their own.
    """
    session = options.session
    with restored_affinity():
        ready = {each.name: prepare_candidate(each, session, options.end_to_end, options.seed) for each in candidates}
        clocks = ClockWatch(session.cores, skip=len(ready))

        def enter(name: str) -> None:
            clocks.read()
            pin_thread(ready[name].caller_cores)

        before = read_state()
        calls = {name: each.calls for name, each in ready.items()}
        samples = measure(options.mode, calls, options.schedule, enter=enter)
    # With the cores back: they are those whose busy time counts.
    after, opened = read_state(), {name: _opened(each) for name, each in ready.items()}
    return Start(samples, opened, before, after, clocks.seen_mhz)


def _opened(ready: PreparedCandidate) -> OpenedCandidate:
    session = ready.session
    return OpenedCandidate(
        backend=session.backend,
        version=session.version,
        provider=session.provider,
        threads=session.threads,
        cores=ready.cores,
        pinned=session.pinned,
        input_shapes={spec.name: spec.shape for spec in session.inputs},
        scope=ready.scope,
    )


def load_start(folder: Path) -> Start:
    """The start that a process wrote into a folder."""
    result = _Result.load(folder / RESULT)
    samples = {}
    for place, name in enumerate(result.names):
        times, interrupted = np.load(folder / f"{place}.npy")
        samples[name] = Samples(times, WarmUp(**result.warm_ups[name]), interrupted > 0)
    return Start(samples, result.opened, result.before, result.after, result.clocks_mhz)


def _write(start: Start, folder: Path) -> None:
    names = tuple(start.samples)
    for place, name in enumerate(names):
        each = start.samples[name]
        np.save(folder / f"{place}.npy", np.stack([each.times_s, each.interrupted.astype(np.float64)]))
    result = _Result(
        names=names,
        opened=start.opened,
        warm_ups={name: dataclasses.asdict(each.warm_up) for name, each in start.samples.items()},
        before=start.before,
        after=start.after,
        clocks_mhz=start.clocks_mhz,
    )
    result.save(folder / RESULT)


def main() -> None:
    for module in filter(None, os.environ.get(MODULES, "").split(",")):
        importlib.import_module(module)
    folder = Path(sys.argv[1])
    request = StartRequest.load(folder / REQUEST)
    if any(each.backend not in BACKENDS for each in request.candidates):
        sys.exit(UNKNOWN_BACKEND)  # registered by the program that asks, not by a module
    candidates = [each.candidate() for each in request.candidates]
    try:
        start = run_start(candidates, request.options)
    except EightfoldError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    _write(start, folder)


if __name__ == "__main__":
    main()
