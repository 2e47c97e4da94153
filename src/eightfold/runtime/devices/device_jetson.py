"""Facts about NVIDIA Jetson boards: release, power mode, whether the clocks are locked, power rails.

Containers on a board seldom have nvpmodel or jetson_clocks, so their state is read from the files they act upon.
"""

from __future__ import annotations

import re

from pydantic import Field

from eightfold.runtime.devices.device_probe import DeviceProbe
from eightfold.values import Frozen


class Jetson(Frozen):
    """A Jetson board and the settings that decide its speed."""

    l4t: str = Field(description="Linux for Tegra release, e.g. '36.4.3' (JetPack 6.2)")
    power_mode: str | None = None
    clocks_locked: bool | None = Field(
        default=None, description="whether jetson_clocks (or the like) holds CPU and GPU at one clock each"
    )
    gpu_min_mhz: float | None = None
    gpu_max_mhz: float | None = None

    def describe(self) -> str:
        """One line for a person."""
        clocks = {True: "clocks locked", False: "clocks NOT locked (sudo jetson_clocks)", None: "clocks unknown"}
        return f"L4T {self.l4t}, power mode {self.power_mode or 'unknown'}, {clocks[self.clocks_locked]}"


def read_jetson(probe: DeviceProbe, cpu_locked: bool | None) -> Jetson | None:
    """The board, or None where this is no Jetson. `cpu_locked`: by the CPU's clock limits."""
    release = probe.text("etc/nv_tegra_release")
    if release is None:
        return None
    low, high = _gpu_limit_mhz(probe, "min_freq"), _gpu_limit_mhz(probe, "max_freq")
    gpu_locked = None if low is None or high is None else low == high
    known = [locked for locked in (cpu_locked, gpu_locked) if locked is not None]
    return Jetson(
        l4t=_l4t(release),
        power_mode=_power_mode(probe),
        clocks_locked=all(known) if known else None,
        gpu_min_mhz=low,
        gpu_max_mhz=high,
    )


def read_gpu_mhz(probe: DeviceProbe) -> float | None:
    """The integrated GPU's clock now, in MHz."""
    return _gpu_limit_mhz(probe, "cur_freq")


def read_rails_mw(probe: DeviceProbe) -> dict[str, float]:
    """Power by rail in milliwatts, from the INA3221 monitors (JetPack 4: iio; JetPack 5 and later: hwmon)."""
    rails: dict[str, float] = {}
    for path in probe.paths("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
        power = probe.number(path.replace("rail_name_", "in_power") + "_input")
        if power is not None:
            rails[probe.text(path) or path] = power
    for path in probe.paths("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label"):
        millivolts = probe.number(path.replace("_label", "_input"))
        milliamperes = probe.number(re.sub(r"/in(\d+)_label$", r"/curr\1_input", path))
        if millivolts is not None and milliamperes is not None:
            rails[probe.text(path) or path] = millivolts * milliamperes / 1000
    return rails


def read_over_currents(probe: DeviceProbe) -> int | None:
    """Number of over-current throttling events of the board since boot; None if it does not tell."""
    counts = [probe.number(path) for path in probe.paths("sys/class/hwmon/hwmon*/oc*_event_cnt")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _l4t(release: str) -> str:
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", release)
    return f"{found[1]}.{found[2]}" if found else release.partition("\n")[0].strip("# ") or "unknown"


def _gpu_limit_mhz(probe: DeviceProbe, name: str) -> float | None:
    # 57000000.gpu on Nano, 17000000.gv11b on Xavier, 17000000.ga10b or .gpu on Orin, gpu-gpc-0 on Thor
    for pattern in ("*.gpu", "*.gv11b", "*.ga10b", "*.gp10b", "gpu-gpc-0"):
        for path in probe.paths(f"sys/class/devfreq/{pattern}"):
            hertz = probe.number(f"{path}/{name}")
            if hertz is not None:
                return hertz / 1e6
    return None


def _power_mode(probe: DeviceProbe) -> str | None:
    """From nvpmodel itself, or from the state it keeps ('pmode:0000') and the names in its configuration."""
    answer = re.search(r"NV Power Mode:\s*(\S+)", probe.run(["nvpmodel", "-q"]) or "")
    if answer:
        return answer[1]
    state = re.search(r"pmode:(\d+)", probe.text("var/lib/nvpmodel/status") or "")
    if not state:
        return None
    number = int(state[1])
    configuration = probe.text("etc/nvpmodel.conf") or ""
    name = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+)", configuration)
    return name[1] if name else f"mode {number}"
