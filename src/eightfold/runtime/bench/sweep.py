"""Finds the number of threads with which each candidate is fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from eightfold.runtime.backends import BACKENDS
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.placement import select_cores
from eightfold.runtime.bench.start import StartOptions
from eightfold.runtime.bench.starts import measure_starts

SWEEP: Final = "sweep"
Threads = int | Literal["sweep"] | None
# Of the time of a row, for each number of threads.
SHARE = 0.25
# More threads have to be faster than fewer by this share: they take cores from the rest of an application.
WORTH = 0.03


@dataclass(frozen=True)
class Swept:
    """A candidate with its fastest number of threads, and milliseconds by the numbers tried; none without a sweep."""

    candidate: Candidate
    tried_ms: Mapping[int, float] = field(default_factory=dict)


def thread_counts(cores: int) -> tuple[int, ...]:
    """The numbers of threads to try: powers of two below the number of cores, and that number.

    >>> thread_counts(6)
    (1, 2, 4, 6)
    """
    powers = [2**power for power in range(max(cores, 1).bit_length()) if 2**power < cores]
    return (*powers, max(cores, 1))


def sweep_threads(candidates: Sequence[Candidate], options: StartOptions) -> list[Swept]:
    """Measure every candidate of a CPU backend with each number of threads, all taking turns in one start.

    The measurement that follows is another one, so that its result is not better for having been chosen.

    Args:
        candidates: of one batch size.
        options: of the measurement that follows.
    """
    counts = thread_counts(len(select_cores()))
    on_cpu = [each for each in candidates if not BACKENDS[each.backend].on_gpu]
    if not on_cpu:
        return [Swept(each) for each in candidates]
    variants = [replace(each, name=_name(each, count), threads=count) for each in on_cpu for count in counts]
    schedule = replace(options.schedule, seconds=options.schedule.seconds * SHARE, starts=1)
    (start,) = measure_starts(variants, replace(options, schedule=schedule))
    times_ms = {name: float(np.median(each.times_s)) * 1e3 for name, each in start.samples.items()}
    tried = {each.name: {count: times_ms[_name(each, count)] for count in counts} for each in on_cpu}
    return [_chosen(each, tried[each.name]) if each.name in tried else Swept(each) for each in candidates]


def _name(candidate: Candidate, threads: int) -> str:
    return f"{candidate.name} with {threads}"


def _chosen(candidate: Candidate, tried_ms: Mapping[int, float]) -> Swept:
    return Swept(replace(candidate, threads=fastest_count(tried_ms)), tried_ms)


def fastest_count(tried_ms: Mapping[int, float]) -> int:
    """The fewest threads that are at most 3% slower than the fastest number.

    >>> fastest_count({1: 2.04, 2: 2.0, 4: 2.5})
    1
    """
    limit = min(tried_ms.values()) * (1 + WORTH)
    return min(count for count, ms in tried_ms.items() if ms <= limit)
