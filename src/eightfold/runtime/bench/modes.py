"""Modes of a measurement: how calls follow each other, and what the times mean.

Names and rules of `single-stream` and `offline` are those of MLPerf Inference (Reddi et al., ISCA 2020); a run that is
shorter than its rules ask for says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import UnknownNameError
from eightfold.runtime.bench.interleave import Call, Clock, Enter, Samples, Schedule, alternate, orders, warm_up

Mode = Literal["latency", "throughput", "single-stream", "offline"]

# MLPerf Inference rules, section 3: a run lasts so long at least.
MLPERF_SECONDS = 600.0


@dataclass(frozen=True)
class ModeRule:
    """A mode in words.

    Attributes:
        meaning: what is done and what the times are, for the notes of a table.
        pipelined: several requests are in flight.
        least_s: the shortest run that may carry the name without a remark.
    """

    meaning: str
    pipelined: bool = False
    least_s: float = 0.0

    @property
    def alone(self) -> bool:
        """True if candidates do not take turns, so that no ratio can be had: MLPerf's."""
        return self.least_s > 0

    def note(self, mode: str, seconds: float) -> str:
        """The meaning, with the remark that the run was shortened, where it was."""
        short = f" (shortened: {seconds:g} of {self.least_s:g} s)" if seconds < self.least_s else ""
        return f"{mode}{short}: {self.meaning}"


MODES: dict[Mode, ModeRule] = {
    "latency": ModeRule("each call waits for the last; candidates take turns"),
    "throughput": ModeRule(
        "a request in flight on each core, candidates taking turns; times are wall time per call", pipelined=True
    ),
    "single-stream": ModeRule(
        "one call after the other, each candidate alone; its result is p90, as in MLPerf", least_s=MLPERF_SECONDS
    ),
    "offline": ModeRule(
        "all images at once, each candidate alone; its result is images/s, as in MLPerf; times are wall time per call",
        pipelined=True,
        least_s=MLPERF_SECONDS,
    ),
}


def require_mode(mode: str) -> None:
    """Raise UsageError for a name that is none."""
    if mode not in MODES:
        raise UnknownNameError.of("mode", mode, MODES)


def measure(
    mode: Mode, calls: Mapping[str, Sequence[Call]], schedule: Schedule, *, enter: Enter = lambda name: None
) -> dict[str, Samples]:
    """The samples of a mode.

    Args:
        calls: name -> calls with buffers of their own: one, or as many as may be in flight.
        schedule: as for `alternate`.
        enter: as for `alternate`.
    """

    def run(some: Mapping[str, Sequence[Call]]) -> dict[str, Samples]:
        if MODES[mode].pipelined:
            return pipelined(some, schedule, enter=enter)
        return alternate({name: each[0] for name, each in some.items()}, schedule, enter=enter)

    if not MODES[mode].alone:
        return run(calls)
    return {name: samples for each in calls for name, samples in run({each: calls[each]}).items()}


def pipelined(
    calls: Mapping[str, Sequence[Call]],
    schedule: Schedule,
    *,
    enter: Enter = lambda name: None,
    clock: Clock = time.perf_counter,
) -> dict[str, Samples]:
    """Wall time per call with one request of each of a candidate's calls in flight, block by block.

    Args:
        calls: name -> the calls of the requests, each with buffers of its own; a thread runs each again and again.
        schedule: as for `alternate`.
        enter: as for `alternate`; threads inherit what it sets.

    Returns:
        samples shaped (rounds, 1): the seconds of a block divided by the calls that ended in it.
    """
    warm = {}
    for name, requests in calls.items():
        enter(name)
        warm[name] = warm_up(requests[0], schedule, clock)
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    for order in orders(list(calls), schedule, spent):
        for name in order:
            enter(name)
            seconds, count = _burst(calls[name], schedule.block, clock)
            spent[name] += seconds
            times[name].append(np.array([seconds / count]))
    return {
        name: Samples(np.stack(found), warm[name], np.zeros((len(found), 1), bool)) for name, found in times.items()
    }


def _burst(requests: Sequence[Call], seconds: float, clock: Clock) -> tuple[float, int]:
    """Run all requests side by side for about so long: wall seconds, and calls that ended."""
    ends = [0] * len(requests)
    failures: list[BaseException] = []
    begin = clock()
    stop = begin + seconds

    def work(place: int) -> None:
        try:
            while True:
                requests[place]()
                ends[place] += 1
                if clock() >= stop:
                    return
        except BaseException as error:  # handed to the caller below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = clock() - begin
    if failures:
        raise failures[0]
    return passed, sum(ends)
