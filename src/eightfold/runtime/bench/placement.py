"""Cores for a measurement: selects them, and pins the thread that measures.

Two threads of one network on one core, or on the two hyper-threads of one, take up to twice as long as on two cores,
and the kernel decides anew at each start where they run. A measurement that leaves this open has two answers.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

from eightfold.runtime.devices.device_cpu import read_busy_ticks, read_cpu
from eightfold.runtime.devices.device_probe import DeviceProbe

# Cores are told apart by how busy they are in steps of this share; the kernel counts in hundredths of a second.
BUSY_STEP = 0.25


def select_cores(probe: DeviceProbe | None = None, *, watch_s: float = 0.0) -> tuple[int, ...]:
    """One logical core of each physical core that this process may use, the best first; at most its container's quota.

    Args:
        probe: where to read from; the machine itself by default.
        watch_s: seconds to watch how busy the cores are; quiet ones come before busy ones. 0 does not look.

    Returns:
        numbers of cores: the fastest first (`cpu_capacity` or the highest clock), then the quietest, then by number.
        Empty where the system has no affinities.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    probe = probe or DeviceProbe()
    allowed = sorted(os.sched_getaffinity(0))
    groups: dict[str, int] = {}
    for core in allowed:
        siblings = probe.text(f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") or str(core)
        groups.setdefault(siblings, core)
    busy = _busy_shares(probe, watch_s)
    ranked = sorted(groups.values(), key=lambda core: (-_speed(probe, core), busy.get(core, 0), core))
    quota = read_cpu(probe).quota_cores
    return tuple(ranked if quota is None else ranked[: max(1, int(quota))])


def _speed(probe: DeviceProbe, core: int) -> float:
    """Speed of a core by the kernel, without a unit: only cores of one machine are compared."""
    folder = f"sys/devices/system/cpu/cpu{core}"
    return probe.number(f"{folder}/cpu_capacity") or probe.number(f"{folder}/cpufreq/cpuinfo_max_freq") or 0.0


def _busy_shares(probe: DeviceProbe, watch_s: float) -> dict[int, int]:
    """Core -> its busy share now, in steps."""
    if watch_s <= 0:
        return {}
    before, start = read_busy_ticks(probe), time.perf_counter()
    time.sleep(watch_s)
    after, passed_s = read_busy_ticks(probe), time.perf_counter() - start
    return {
        core: round((ticks - before[core]) / 100 / passed_s / BUSY_STEP)
        for core, ticks in after.items()
        if core in before
    }


def pin_thread(cores: Sequence[int]) -> None:
    """Let the calling thread run on these cores alone; threads that it starts from now on inherit that."""
    if cores:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def restored_affinity() -> Iterator[None]:
    """Give the calling thread its cores back at the end."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
