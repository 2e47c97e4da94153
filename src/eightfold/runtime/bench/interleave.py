"""The measuring loop: candidates take turns, so that whatever disturbs the machine disturbs them all alike.

A round gives every candidate one block of calls, in an order drawn anew each time. A block opens with one call that is
not timed: it brings the candidate's own weights back into the caches and outlasts the spinning threads of the last.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import UsageError

Call = Callable[[], object]
Clock = Callable[[], float]
# Called before a candidate's warm-up and before each of its blocks.
Enter = Callable[[str], object]
# Shorter measurements have one start: to start again would take longer than to measure.
SEVERAL_STARTS_S = 1.0
STARTS = 6
ROUNDS_OF_START = 7
# Fewer rounds with uninterrupted calls give no ratio.
LEAST_ROUNDS = 3


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
        starts: of the program, which the time and the rounds are divided among; by default 6, and 1 where `seconds` is
            less than one second.
    """

    seconds: float = 4.0
    rounds: int = 10
    block_s: float = 0.2
    warmup_s: float = 1.0
    stable_within: float = 0.02
    seed: int = 0
    starts: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):  # NaN fails this, too
            raise UsageError(f"{self.seconds} seconds for each row", allowed="a positive number")
        if self.starts is not None and self.starts < 1:
            raise UsageError(f"{self.starts} starts", allowed="1 or more; from 2 on the interval spans starts")

    @property
    def start_count(self) -> int:
        """Number of starts."""
        return self.starts or (STARTS if self.seconds >= SEVERAL_STARTS_S else 1)

    def of_start(self, place: int) -> Schedule:
        """The part of the start of that number, with an order of its own."""
        count = self.start_count
        if count == 1:
            return self
        rounds = max(ROUNDS_OF_START, -(-self.rounds // count))
        return replace(self, seconds=self.seconds / count, rounds=rounds, seed=self.seed + place, starts=1)

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
    """`times_s` is shaped (rounds, calls per round), in the order measured.

    `interrupted` has the same shape: true where the kernel took a core from a thread of this program during that call.
    """

    times_s: NDArray[np.float64]
    warm_up: WarmUp
    interrupted: NDArray[np.bool_]

    @property
    def uninterrupted_s(self) -> NDArray[np.float64]:
        """The times, NaN where a call was interrupted; all times where fewer than `LEAST_ROUNDS` rounds would be left.

        On a busy machine an interruption takes a slice of the scheduler, milliseconds, whatever the network: with it, a
        ratio of medians says which network is longer than a slice, and not how much faster one is.
        """
        left = np.where(self.interrupted, np.nan, self.times_s)
        return left if np.count_nonzero(~self.interrupted.all(axis=1)) >= LEAST_ROUNDS else self.times_s


def alternate(
    calls: Mapping[str, Call],
    schedule: Schedule | None = None,
    *,
    clock: Clock = time.perf_counter,
    enter: Enter = lambda name: None,
) -> dict[str, Samples]:
    """Measure several calls against each other in one start.

    Args:
        calls: name -> what to time.
        schedule: how long.
        clock: seconds; tests pass their own.
        enter: called with a name before its warm-up and before each of its blocks, outside the time.
    """
    schedule = schedule or Schedule()
    warm = {}
    for name, call in calls.items():
        enter(name)
        warm[name] = warm_up(call, schedule, clock)
    sizes = {name: max(2, round(schedule.block / max(state.call_s, 1e-9))) for name, state in warm.items()}
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in calls}
    marks: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    for order in orders(list(calls), schedule, spent):
        for name in order:
            enter(name)
            block, interrupted = _block(calls[name], sizes[name], clock)
            spent[name] += float(block.sum())
            times[name].append(block)
            marks[name].append(interrupted)
    return {name: Samples(np.stack(times[name]), warm[name], np.stack(marks[name])) for name in calls}


def _preemptions() -> int:
    """Of all threads of this program, since its start: switches to other work that no thread asked for."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


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
        times.append(float(_block(call, 1, clock, opening=False)[0][0]))
    return float(np.median(times)), len(times)


def orders(names: Sequence[str], schedule: Schedule, spent: Mapping[str, float]) -> Iterator[list[str]]:
    """Orders of the candidates in a round, until every one has had its time and its rounds.

    Args:
        spent: name -> timed seconds so far; the caller keeps it up to date.
    """
    random = np.random.default_rng(schedule.seed)
    done = 0
    while done < schedule.rounds or min(spent.values()) < schedule.seconds:
        yield [names[index] for index in random.permutation(len(names))]
        done += 1


def _block(
    call: Call, size: int, clock: Clock, *, opening: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Seconds of each call; and where it was interrupted."""
    if opening:
        call()
    times, preemptions = np.empty(size), np.empty(size + 1, np.int64)
    preemptions[0] = _preemptions()
    for index in range(size):
        begin = clock()
        call()
        times[index] = clock() - begin
        preemptions[index + 1] = _preemptions()
    return times, np.diff(preemptions) > 0
