"""Facts about the processor, from /proc and /sys."""

from __future__ import annotations

import re

from pydantic import Field

from eightfold.runtime.devices.device_probe import DeviceProbe
from eightfold.values import Frozen

# The kernel's name -> the name people search for. Only what decides how fast a network runs.
FEATURES = {
    **{name: name for name in ("sse4_2", "avx", "avx2", "fma", "f16c")},
    **{name: name for name in ("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni")},
    **{name: name for name in ("avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")},
    **{"neon": "neon", "asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod"},
    **{"bf16": "bf16", "i8mm": "i8mm", "sve": "sve", "sve2": "sve2"},
}
INT8_DOT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm"})

# Arm's main ID registers name no model: (implementer, part), from the kernel's arch/arm64/include/asm/cputype.h.
ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x003"): "Denver 2",
    ("0x4e", "0x004"): "Carmel",
}


# proc(5): /proc/stat counts in these units, whatever the kernel's own clock; user, nice, system, irq, softirq, steal.
TICKS_PER_S = 100
BUSY_COLUMNS = frozenset({0, 1, 2, 5, 6, 7})


class Cpu(Frozen):
    """A processor, as this process may use it."""

    model: str
    architecture: str
    cores: int | None = Field(default=None, description="logical cores that this process may run on")
    quota_cores: float | None = Field(default=None, description="the container's CPU limit, where it has one")
    features: tuple[str, ...] = ()
    virtual: bool = False
    governor: str | None = None
    min_mhz: float | None = None
    max_mhz: float | None = None

    @property
    def has_int8_dot(self) -> bool:
        """True if 8-bit dot products are one instruction; without it INT8 gains little on a CPU."""
        return not INT8_DOT.isdisjoint(self.features)

    @property
    def clocks_locked(self) -> bool | None:
        """True if the clock cannot change; None if the machine does not tell."""
        if self.min_mhz is None or self.max_mhz is None:
            return None
        return self.min_mhz == self.max_mhz

    def describe(self) -> str:
        """One line for a person."""
        parts = [f"{self.cores} cores" if self.cores else "", self.architecture, "virtual" if self.virtual else ""]
        parts.append(f"limited to {self.quota_cores:g} cores" if self.quota_cores else "")
        parts.append(f"governor {self.governor}" if self.governor else "")
        if self.max_mhz is not None:
            parts.append(f"{self.min_mhz or 0:.0f} to {self.max_mhz:.0f} MHz")
        return f"{self.model} ({', '.join(part for part in parts if part)})"


class CoreSeconds(Frozen):
    """Busy time of cores, summed over the cores that this process may use."""

    uptime_s: float
    busy_s: float = Field(description="with anything, what a hypervisor took away included")
    own_s: float = Field(description="with this process")

    def others_since(self, before: CoreSeconds) -> float:
        """Average number of cores that other processes kept busy since `before`."""
        passed = self.uptime_s - before.uptime_s
        others = (self.busy_s - before.busy_s) - (self.own_s - before.own_s)
        return max(0.0, others) / passed if passed > 0 else 0.0


def read_cpu(probe: DeviceProbe) -> Cpu:
    """Facts about the processor."""
    info = probe.text("proc/cpuinfo") or ""
    flags = set(_field(info, "flags", "Features").split())
    governors = {probe.text(path) for path in probe.paths("sys/devices/system/cpu/cpufreq/policy*/scaling_governor")}
    return Cpu(
        model=_model(info) or "unknown processor",
        architecture=probe.machine,
        cores=len(_allowed(probe)) or None,
        quota_cores=_quota_cores(probe),
        features=tuple(dict.fromkeys(name for flag, name in FEATURES.items() if flag in flags)),
        virtual="hypervisor" in flags,
        governor="+".join(sorted(name for name in governors if name)) or None,
        min_mhz=min(_frequencies_mhz(probe, "scaling_min_freq"), default=None),
        max_mhz=max(_frequencies_mhz(probe, "scaling_max_freq"), default=None),
    )


def read_cpu_mhz(probe: DeviceProbe) -> float | None:
    """The mean clock over all cores now, in MHz."""
    now = _frequencies_mhz(probe, "scaling_cur_freq")
    if not now:  # virtual machines have no cpufreq; x86 still tells in cpuinfo
        now = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", probe.text("proc/cpuinfo") or "", re.M)]
    return sum(now) / len(now) if now else None


def read_core_seconds(probe: DeviceProbe) -> CoreSeconds | None:
    """None where the kernel does not tell. Its counters move in hundredths of a second."""
    cores = _allowed(probe)
    busy = [ticks for core, ticks in read_busy_ticks(probe).items() if core in cores]
    # A program's name may hold anything, in brackets; then come the state and ten more, then utime and stime.
    own = re.search(r"^\d+ \(.*\) \S(?: -?\d+){10} (\d+) (\d+)", probe.text("proc/self/stat") or "", re.S)
    uptime_s = probe.number("proc/uptime")
    if uptime_s is None or own is None or not busy:
        return None
    own_ticks = int(own[1]) + int(own[2])
    return CoreSeconds(uptime_s=uptime_s, busy_s=sum(busy) / TICKS_PER_S, own_s=own_ticks / TICKS_PER_S)


def read_busy_ticks(probe: DeviceProbe) -> dict[int, int]:
    """Core -> hundredths of a second that it was busy since the start; empty where the kernel does not tell."""
    rows = re.findall(r"^cpu(\d+)((?: \d+)+)$", probe.text("proc/stat") or "", re.M)
    return {int(core): _busy_ticks(values) for core, values in rows}


def _busy_ticks(values: str) -> int:
    return sum(int(ticks) for column, ticks in enumerate(values.split()) if column in BUSY_COLUMNS)


def read_cpu_throttles(probe: DeviceProbe) -> int | None:
    """Number of thermal throttling events of the processor since boot, if it tells."""
    counts = [
        probe.number(path) for path in probe.paths("sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")
    ]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _field(info: str, *names: str) -> str:
    found = re.search(rf"^(?:{'|'.join(names)})\s*:\s*(.*)$", info, re.M)
    return found[1].strip() if found else ""


def _model(info: str) -> str:
    name = _field(info, "model name", "Model name")
    if name and not name.startswith("ARMv8"):
        return re.sub(r"\s+", " ", name)
    pairs = zip(
        re.findall(r"^CPU implementer\s*:\s*(\S+)", info, re.M),
        re.findall(r"^CPU part\s*:\s*(\S+)", info, re.M),
        strict=False,
    )
    cores = [ARM_CORES.get(pair, f"Arm {pair[0]}:{pair[1]}") for pair in pairs]
    return " + ".join(f"{cores.count(core)} x {core}" for core in dict.fromkeys(cores)) or name


def _allowed(probe: DeviceProbe) -> frozenset[int]:
    """The cores that the kernel lets this process use: 'Cpus_allowed_list: 0-3,6'."""
    listed = _field(probe.text("proc/self/status") or "", "Cpus_allowed_list")
    spans = re.findall(r"\b(\d{1,5})(?:-(\d{1,5}))?\b", listed)
    return frozenset(core for first, last in spans for core in range(int(first), int(last or first) + 1))


def _quota_cores(probe: DeviceProbe) -> float | None:
    """The limit of the control group: cpu.max in version 2, cfs quota and period in version 1."""
    limit = re.match(r"(\d+) ([1-9]\d*)$", probe.text("sys/fs/cgroup/cpu.max") or "")
    if limit:
        return int(limit[1]) / int(limit[2])
    quota = probe.number("sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period_us = probe.number("sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return quota / period_us if quota and quota > 0 and period_us else None


def _frequencies_mhz(probe: DeviceProbe, name: str) -> list[float]:
    found = [probe.number(path) for path in probe.paths(f"sys/devices/system/cpu/cpufreq/policy*/{name}")]
    return [khz / 1000 for khz in found if khz is not None]
