"""`Device`: the machine a number was measured on, and `DeviceState`: what of it changes while one measures."""

from __future__ import annotations

import platform
import re
from typing import ClassVar

from pydantic import Field

from eightfold.runtime.devices.device_cpu import (
    CoreSeconds,
    Cpu,
    read_core_seconds,
    read_cpu,
    read_cpu_mhz,
    read_cpu_throttles,
)
from eightfold.runtime.devices.device_gpu import Gpu, read_gpus
from eightfold.runtime.devices.device_jetson import Jetson, read_gpu_mhz, read_jetson, read_over_currents, read_rails_mw
from eightfold.runtime.devices.device_probe import DeviceProbe
from eightfold.values import Frozen, Value
from eightfold.versions import runtime_versions

__all__ = ["Device", "DeviceState", "describe_device", "read_state", "runtime_versions"]


class DeviceState(Frozen):
    """Device facts that change: read them before and after a measurement, and show both. Facts that cannot be read are
    None or absent."""

    cpu_mhz: float | None = None
    gpu_mhz: float | None = None
    temperatures_c: dict[str, float] = Field(default={})
    rails_mw: dict[str, float] = Field(default={})
    slowdowns: int | None = Field(
        default=None,
        description="times that heat or current slowed the hardware since it started: more means a bad run",
    )
    core_seconds: CoreSeconds | None = None
    load_1min: float | None = Field(default=None, description="the kernel's load average: what else was running")

    def others_since(self, before: DeviceState) -> float | None:
        """Average number of cores that other processes kept busy since `before`; None if it is unknown."""
        if self.core_seconds is None or before.core_seconds is None:
            return None
        return self.core_seconds.others_since(before.core_seconds)

    def describe(self) -> str:
        """One line for a person."""
        hottest = max(self.temperatures_c.items(), key=lambda item: item[1], default=None)
        parts = [
            f"CPU {self.cpu_mhz:.0f} MHz" if self.cpu_mhz else "",
            f"GPU {self.gpu_mhz:.0f} MHz" if self.gpu_mhz else "",
            f"hottest {hottest[1]:.0f} C ({hottest[0]})" if hottest else "temperatures not readable",
            # Not a sum: the input rail contains the others.
            *(f"{name} {power / 1000:.1f} W" for name, power in self.rails_mw.items()),
            f"{self.slowdowns} slowdowns since boot" if self.slowdowns is not None else "",
            f"load {self.load_1min:.2f}" if self.load_1min is not None else "",
        ]
        return ", ".join(part for part in parts if part)


class Device(Value):
    """A machine, as far as it decides how fast a network runs on it."""

    kind: ClassVar[str] = "device"

    cpu: Cpu
    memory_bytes: int | None = None
    os: str
    kernel: str | None = None
    container: str | None = None
    board: str | None = None
    gpus: tuple[Gpu, ...] = ()
    jetson: Jetson | None = None
    state: DeviceState = DeviceState()

    def line(self) -> str:
        """The machine in one line: a heading for tables."""
        memory = f", {self.memory_bytes / 2**30:.0f} GiB" if self.memory_bytes else ""
        cores = f", {self.cpu.cores} cores" if self.cpu.cores else ""
        gpus = "".join(f", {gpu.name}" for gpu in self.gpus)
        return f"{self.board or self.cpu.model}{cores}{memory}{gpus}"

    def facts(self) -> dict[str, str]:
        """Heading -> what is known, in words; without what is not known."""
        facts = {
            "board": self.board or "",
            "CPU": self.cpu.describe(),
            "features": " ".join(self.cpu.features) or "none known",
            "memory": f"{self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else "",
            "system": f"{self.os}, kernel {self.kernel}" + (f", in {self.container}" if self.container else ""),
            "GPU": "; ".join(gpu.describe() for gpu in self.gpus),
            "Jetson": self.jetson.describe() if self.jetson else "",
            "state": self.state.describe(),
        }
        return {name: text for name, text in facts.items() if text}

    def describe(self) -> str:
        return "\n".join(f"{name:<10} {text}" for name, text in self.facts().items())


def describe_device(probe: DeviceProbe | None = None) -> Device:
    """Read what the machine tells about itself. Never fails: what cannot be read is left out.

    Args:
        probe: where to read from; the machine itself by default.
    """
    probe = probe or DeviceProbe()
    cpu = read_cpu(probe)
    return Device(
        cpu=cpu,
        memory_bytes=_memory_bytes(probe),
        os=_os(probe),
        kernel=probe.text("proc/sys/kernel/osrelease"),
        container=_container(probe),
        board=probe.text("proc/device-tree/model"),
        gpus=read_gpus(probe),
        jetson=read_jetson(probe, cpu.clocks_locked),
        state=read_state(probe),
    )


def read_state(probe: DeviceProbe | None = None) -> DeviceState:
    """Clocks, temperatures, power and slowdowns now. Reads files only, so it is cheap enough to call often."""
    probe = probe or DeviceProbe()
    slowdowns = [count for count in (read_cpu_throttles(probe), read_over_currents(probe)) if count is not None]
    return DeviceState(
        cpu_mhz=read_cpu_mhz(probe),
        gpu_mhz=read_gpu_mhz(probe),
        temperatures_c=_temperatures_c(probe),
        rails_mw=read_rails_mw(probe),
        slowdowns=sum(slowdowns) if slowdowns else None,
        core_seconds=read_core_seconds(probe),
        load_1min=probe.number("proc/loadavg"),
    )


def _memory_bytes(probe: DeviceProbe) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", probe.text("proc/meminfo") or "", re.M)
    return int(found[1]) * 1024 if found else None


def _os(probe: DeviceProbe) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?', probe.text("etc/os-release") or "", re.M)
    return found[1] if found else platform.system()


def _container(probe: DeviceProbe) -> str | None:
    if probe.exists(".dockerenv"):
        return "docker"
    if probe.exists("run/.containerenv"):
        return "podman"
    groups = probe.text("proc/self/cgroup") or ""
    return next((name for name in ("kubepods", "docker", "lxc") if name in groups), None)


def _temperatures_c(probe: DeviceProbe) -> dict[str, float]:
    """By thermal zone, in degrees Celsius; zones of parts that are switched off cannot be read and are left out."""
    found: dict[str, float] = {}
    for zone in probe.paths("sys/class/thermal/thermal_zone*"):
        millidegrees = probe.number(f"{zone}/temp")
        # Switched-off zones of older Jetsons read as -256 degrees.
        if millidegrees is not None and millidegrees > -200_000:
            found[probe.text(f"{zone}/type") or zone.rpartition("/")[2]] = millidegrees / 1000
    return found
