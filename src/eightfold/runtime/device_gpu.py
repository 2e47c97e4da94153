"""Facts about NVIDIA GPUs, from nvidia-smi, which every desktop and server driver ships."""

from __future__ import annotations

from eightfold.runtime.device_probe import Probe, finite
from eightfold.values import Frozen

QUERY = (
    "name,compute_cap,memory.total,driver_version,clocks.max.sm,clocks.sm,clocks.mem,"
    "temperature.gpu,power.draw,power.limit,persistence_mode,clocks_throttle_reasons.active"
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
        parts = [
            f"compute capability {self.compute_capability}" if self.compute_capability else "",
            f"{self.memory_mib / 1024:.0f} GiB" if self.memory_mib else "",
            f"driver {self.driver}" if self.driver else "",
            f"{self.mhz:.0f} of {self.max_mhz:.0f} MHz" if self.mhz and self.max_mhz else "",
            f"throttled by {', '.join(self.throttled_by)}" if self.throttled_by else "",
        ]
        return f"{self.name} ({', '.join(part for part in parts if part)})"


def read_gpus(probe: Probe) -> tuple[Gpu, ...]:
    """The GPUs that the driver shows; none when there is no driver."""
    answer = probe.run(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"])
    rows = [[cell.strip() for cell in line.split(",")] for line in (answer or "").splitlines()]
    return tuple(_gpu(row) for row in rows if len(row) == len(QUERY.split(",")))


def _gpu(cells: list[str]) -> Gpu:
    name, capability, memory, driver, top, sm, mem, celsius, draw, limit, persistence, reasons = cells
    return Gpu(
        name=name,
        compute_capability=capability if finite(capability) else None,
        memory_mib=finite(memory),
        driver=driver or None,
        max_mhz=finite(top),
        mhz=finite(sm),
        memory_mhz=finite(mem),
        temperature_c=finite(celsius),
        power_w=finite(draw),
        power_limit_w=finite(limit),
        persistence={"Enabled": True, "Disabled": False}.get(persistence),
        throttled_by=_reasons(reasons),
    )


def _reasons(cell: str) -> tuple[str, ...]:
    try:
        mask = int(cell, 16)
    except ValueError:
        return ()
    return tuple(words for bit, words in THROTTLE_REASONS.items() if mask & bit)
