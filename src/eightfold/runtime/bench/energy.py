"""Energy of a call, from the power rails of a Jetson board while the call repeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from eightfold.errors import BackendError
from eightfold.runtime.devices.device_jetson import read_rails_mw
from eightfold.runtime.devices.device_probe import DeviceProbe

# Rails that feed all others, by board; where none is there, all rails add up.
INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "5V_IN")
SECONDS = 2.0  # the monitors average over tenths of seconds
PERIOD_S = 0.02


@dataclass(frozen=True)
class PowerMeter:
    """Reads the board's power.

    Attributes:
        seconds: that a call repeats for one reading of its energy.
    """

    probe: DeviceProbe = field(default_factory=DeviceProbe)
    seconds: float = SECONDS
    clock: Callable[[], float] = time.perf_counter

    def watts(self) -> float:
        """Power of the whole board now.

        Raises BackendError where there are no rails.
        """
        rails = read_rails_mw(self.probe)
        if not rails:
            raise BackendError(
                "no power rails can be read here",
                allowed="a budget of energy on a Jetson board (INA3221 monitors under /sys)",
                remedy="run this on the board, as a user who may read them",
            )
        whole = next((rails[name] for name in INPUT_RAILS if name in rails), sum(rails.values()))
        return whole / 1e3

    def millijoules(self, call: Callable[[], object]) -> float:
        """Energy of one call of the whole board: mean power over `seconds` times the mean time of a call."""
        readings = [self.watts()]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(PERIOD_S):
                readings.append(self.watts())

        call()
        watcher = threading.Thread(target=watch)
        start, calls = self.clock(), 0
        watcher.start()
        try:
            while self.clock() - start < self.seconds:
                call()
                calls += 1
            took = self.clock() - start
        finally:
            done.set()
            watcher.join()
        return sum(readings) / len(readings) * took / calls * 1e3
