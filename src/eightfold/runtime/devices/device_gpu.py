"""Facts about NVIDIA GPUs, from nvidia-smi, which every desktop and server driver ships."""

from __future__ import annotations

from eightfold.runtime.devices.device_probe import DeviceProbe, finite
from eightfold.values import Frozen

FIELDS = (
    *("name", "memory.total", "driver_version", "clocks.max.sm", "clocks.sm", "clocks.mem"),
    *("temperature.gpu", "power.draw", "power.limit", "persistence_mode"),
)
# Fields that not every driver knows; one unknown field and nvidia-smi answers nothing. The best that works is taken.
NEWER_FIELDS = (
    ("compute_cap", "clocks_event_reasons.active"),
    ("compute_cap", "clocks_throttle_reasons.active"),  # its former name
    ("compute_cap",),
    (),
)
# nvml.h, nvmlClocksThrottleReasons: only what slows a measurement down (idle and application clocks do not).
THROTTLE_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class Gpu(Frozen):
    """One GPU, with its state when it was read."""

    name: str
    compute_capability: str | None = None
    memory_mib: float | None = None
    driver: str | None = None
    max_mhz: float | None = None
    mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    persistence: bool | None = None
    throttled_by: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for a person."""
        parts = [
            f"compute capability {self.compute_capability}" if self.compute_capability else "",
            f"{self.memory_mib / 1024:.0f} GiB" if self.memory_mib else "",
            f"driver {self.driver}" if self.driver else "",
            f"{self.mhz:.0f} of {self.max_mhz:.0f} MHz" if self.mhz and self.max_mhz else "",
            f"throttled by {', '.join(self.throttled_by)}" if self.throttled_by else "",
        ]
        return f"{self.name} ({', '.join(part for part in parts if part)})"


def read_gpus(probe: DeviceProbe) -> tuple[Gpu, ...]:
    """The GPUs that the driver shows; none when there is no driver."""
    for newer in NEWER_FIELDS:
        fields = FIELDS + newer
        answer = probe.run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
        if answer:
            rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
            return tuple(_gpu(dict(zip(fields, row, strict=True))) for row in rows if len(row) == len(fields))
    return ()


def _gpu(cells: dict[str, str]) -> Gpu:
    capability = cells.get("compute_cap", "")
    reasons = cells.get("clocks_event_reasons.active") or cells.get("clocks_throttle_reasons.active", "")
    return Gpu(
        name=cells["name"],
        compute_capability=capability if finite(capability) else None,
        memory_mib=finite(cells["memory.total"]),
        driver=cells["driver_version"] or None,
        max_mhz=finite(cells["clocks.max.sm"]),
        mhz=finite(cells["clocks.sm"]),
        memory_mhz=finite(cells["clocks.mem"]),
        temperature_c=finite(cells["temperature.gpu"]),
        power_w=finite(cells["power.draw"]),
        power_limit_w=finite(cells["power.limit"]),
        persistence={"Enabled": True, "Disabled": False}.get(cells["persistence_mode"]),
        throttled_by=_reasons(reasons),
    )


def _reasons(cell: str) -> tuple[str, ...]:
    try:
        mask = int(cell, 16)
    except ValueError:
        return ()
    return tuple(words for bit, words in THROTTLE_REASONS.items() if mask & bit)
