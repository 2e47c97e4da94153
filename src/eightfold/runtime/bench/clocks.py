"""Reads the clock of a core during a measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence

from eightfold.runtime.devices.device_probe import DeviceProbe

# Reading takes some microseconds; clocks move more slowly than this.
READ_EVERY_S = 0.05


class ClockWatch:
    """The clock of the first of some cores, each time that `read` is called, but at most every 50 ms; nothing where
    the kernel does not tell. The first `skip` calls are of the warm-up, when a clock rises from idle."""

    def __init__(self, cores: Sequence[int], probe: DeviceProbe | None = None, *, skip: int = 0) -> None:
        self._probe = probe or DeviceProbe()
        self._path = f"sys/devices/system/cpu/cpu{cores[0]}/cpufreq/scaling_cur_freq" if cores else ""
        self._skip, self._last = skip, float("-inf")
        self._seen: list[float] = []

    def read(self) -> None:
        """Note the clock now."""
        self._skip -= 1
        if self._skip >= 0:
            return
        now = time.perf_counter()
        if not self._path or now - self._last < READ_EVERY_S:
            return
        self._last = now
        khz = self._probe.number(self._path)
        if khz is None:
            self._path = ""
        else:
            self._seen.append(khz / 1000)

    @property
    def seen_mhz(self) -> tuple[float, ...]:
        """In MHz, in order."""
        return tuple(self._seen)
