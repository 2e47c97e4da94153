"""The measuring loop: candidates take turns, so that whatever disturbs the machine disturbs them all alike.

A round gives every candidate one block of calls, in an order drawn anew each time. A block opens with one call that is
not timed: it brings the candidate's own weights back into the caches and outlasts the spinning threads of the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import UsageError

Call = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Schedule:
    """Duration and rounds of a measurement.

    Attributes:
        seconds: timed seconds per candidate; with `rounds` they decide the number of rounds.
        rounds: at least this many, whatever the time: fewer give no interval.
        block_s: about how long one block lasts; less where `seconds` would not reach for `rounds` of them.
        warmup_s: the longest that warming up one candidate may take; at most half of `seconds`.
        stable_within: two successive warm-up windows whose medians differ by less end the warm-up.
        seed: of the order of candidates.
    """

    seconds: float = 4.0
    rounds: int = 10
    block_s: float = 0.2
    warmup_s: float = 1.0
    stable_within: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):  # NaN fails this, too
            raise UsageError(f"{self.seconds} seconds for each row", allowed="a positive number")

    @property
    def block(self) -> float:
        """Seconds of one block of runs."""
        return min(self.block_s, self.seconds / self.rounds)

    @property
    def warmup(self) -> float:
        """Longest warm-up in seconds."""
        return min(self.warmup_s, self.seconds / 2)


@dataclass(frozen=True)
class WarmUp:
    """Duration of one candidate's warm-up, and its state at the end: settled or not."""

    runs: int
    seconds: float
    stable: bool
    call_s: float


@dataclass(frozen=True)
class Samples:
    """`times_s` is shaped (rounds, calls per round), in the order measured."""

    times_s: NDArray[np.float64]
    warm_up: WarmUp


def alternate(
    calls: Mapping[str, Call], schedule: Schedule | None = None, *, clock: Clock = time.perf_counter
) -> dict[str, Samples]:
    """Measure several calls against each other in one run.

    Args:
        calls: name -> what to time.
        schedule: how long.
        clock: seconds; tests pass their own.
    """
    schedule = schedule or Schedule()
    warm = {name: warm_up(call, schedule, clock) for name, call in calls.items()}
    sizes = {name: max(2, round(schedule.block / max(state.call_s, 1e-9))) for name, state in warm.items()}
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in calls}
    for order in _rounds(list(calls), schedule, times):
        for name in order:
            times[name].append(_block(calls[name], sizes[name], clock))
    return {name: Samples(np.stack(blocks), warm[name]) for name, blocks in times.items()}


def warm_up(call: Call, schedule: Schedule, clock: Clock) -> WarmUp:
    """Call until two successive windows agree, or the time for it is over."""
    start = clock()
    call()  # the first call allocates; it belongs to no window
    last, runs = _window(call, schedule, clock)
    runs += 1
    while clock() - start < schedule.warmup:
        now, more = _window(call, schedule, clock)
        runs += more
        if abs(now - last) <= schedule.stable_within * last:
            return WarmUp(runs, clock() - start, True, now)
        last = now
    return WarmUp(runs, clock() - start, False, last)


def _window(call: Call, schedule: Schedule, clock: Clock) -> tuple[float, int]:
    """Median seconds per call over a tenth of the warm-up's time, five calls at least; and how many calls."""
    times: list[float] = []
    begin = clock()
    while len(times) < 5 or (clock() - begin < schedule.warmup / 10 and len(times) < 1000):
        times.append(float(_block(call, 1, clock, opening=False)[0]))
    return float(np.median(times)), len(times)


def _rounds(
    names: list[str], schedule: Schedule, times: Mapping[str, list[NDArray[np.float64]]]
) -> Iterator[list[str]]:
    """Orders, until every candidate has had its time and its rounds."""
    random = np.random.default_rng(schedule.seed)
    spent = dict.fromkeys(names, 0.0)
    done = 0
    while done < schedule.rounds or min(spent.values()) < schedule.seconds:
        yield [names[index] for index in random.permutation(len(names))]
        done += 1
        for name in names:
            spent[name] += float(times[name][-1].sum())


def _block(call: Call, size: int, clock: Clock, *, opening: bool = True) -> NDArray[np.float64]:
    if opening:
        call()
    times = np.empty(size)
    for index in range(size):
        begin = clock()
        call()
        times[index] = clock() - begin
    return times
