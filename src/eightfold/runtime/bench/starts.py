"""Several starts of one measurement; one that was disturbed is made again, up to a budget."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from eightfold.errors import BackendError
from eightfold.runtime.backends import BACKENDS, REGISTERED
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.latency import QUIET_CORES
from eightfold.runtime.bench.modes import MODES
from eightfold.runtime.bench.peak_memory import MODULES, UNKNOWN_BACKEND
from eightfold.runtime.bench.placement import select_cores
from eightfold.runtime.bench.start import FAILED, REQUEST, Start, StartOptions, StartRequest, load_start, run_start
from eightfold.scratch import scratch_folder

# Clocks that move by more than this share of their median have moved.
STEADY_CLOCK = 0.05
WATCH_S = 0.2


OneStart = Callable[[Sequence[Candidate], StartOptions], Start]


def measure_starts(candidates: Sequence[Candidate], options: StartOptions) -> list[Start]:
    """Measure candidates of one batch size, in a process of its own for each start where there are several.

    Returns:
        as many starts as the schedule has, in the order made: of those made, the least disturbed.
    """
    schedule = _schedule(options)
    count, several = schedule.start_count, schedule.start_count > 1
    session = _placed(options, watch_s=WATCH_S if several else 0.0)
    placed = [_with_threads(each, session) for each in candidates]
    one: OneStart = start_in_process if several else run_start
    budget = round(options.repeats * count) if several else 0
    made: list[Start] = []
    while len(made) < count or (len(made) < count + budget and quiet_count(made) < count):
        part = replace(options, session=session, schedule=schedule.of_start(len(made)))
        made.append(one(placed, part))
    return least_disturbed(made, count)


def _schedule(options: StartOptions) -> Schedule:
    """MLPerf's modes are one run."""
    return replace(options.schedule, starts=1) if MODES[options.mode].alone else options.schedule


def _placed(options: StartOptions, watch_s: float) -> SessionOptions:
    """The session's options with cores; of a pipelined mode with as many requests as there are cores for."""
    cores = select_cores(watch_s=watch_s) if options.pin else ()
    if not MODES[options.mode].pipelined:
        return replace(options.session, cores=cores)
    threads = options.session.threads or 1
    requests = max(2, (len(cores) or os.cpu_count() or 1) // threads)
    return replace(options.session, cores=cores, threads=threads, requests=requests)


def _with_threads(candidate: Candidate, session: SessionOptions) -> Candidate:
    """With one thread for each physical core, where nothing else is asked for of a backend on the CPU."""
    if candidate.threads or session.threads or not session.cores or BACKENDS[candidate.backend].on_gpu:
        return candidate
    return replace(candidate, threads=len(session.cores))


def start_in_process(candidates: Sequence[Candidate], options: StartOptions) -> Start:
    """`run_start` in a process of its own: code and buffers lie elsewhere in memory each time.

    A backend that was registered by the running program alone is measured in this process.
    """
    with scratch_folder() as folder:
        StartRequest.of(candidates, options).save(folder / REQUEST)
        command = [sys.executable, "-m", "eightfold.runtime.bench.start", str(folder)]
        environment = {**os.environ, MODULES: ",".join(REGISTERED)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == UNKNOWN_BACKEND:
            return run_start(candidates, options)
        if done.returncode:
            raise _failure(done)
        return load_start(Path(folder))


def _failure(done: subprocess.CompletedProcess[str]) -> BackendError:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode == FAILED and lines:
        return BackendError(lines[-1])
    said = lines[-1] if lines else "without a word"
    return BackendError(f"a start of the measurement ended with code {done.returncode} ({said})")


def disturbance_of(start: Start) -> tuple[int, float]:
    """Disturbance of a start: the number of kinds of disturbance, and the cores that other work kept busy.

    Times play no part in it: choosing starts by their times would make the result better than the truth.
    """
    others = start.after.others_since(start.before) or 0.0
    throttled = (start.after.slowdowns or 0) > (start.before.slowdowns or 0)
    return throttled + clocks_moved(start) + (others > QUIET_CORES), others


def clocks_moved(start: Start) -> bool:
    """True if the clock of the measuring core moved during the rounds."""
    clocks = sorted(start.clocks_mhz)
    return bool(clocks) and clocks[-1] - clocks[0] > STEADY_CLOCK * clocks[len(clocks) // 2]


def quiet_count(starts: Sequence[Start]) -> int:
    """The number of starts that nothing disturbed."""
    return sum(disturbance_of(start)[0] == 0 for start in starts)


def least_disturbed(starts: Sequence[Start], count: int) -> list[Start]:
    """That many of the starts, in the order they were made."""
    places = sorted(range(len(starts)), key=lambda place: (*disturbance_of(starts[place]), place))[:count]
    return [starts[place] for place in sorted(places)]
