"""Memory of a model, measured in a process of its own: within one process, models share what was freed.

Run as a program: `python -m eightfold.runtime.bench.peak_memory BACKEND FILE [THREADS]` prints the bytes. With the
variable EIGHTFOLD_BACKENDS, a module that registers further backends is imported first.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eightfold.runtime.backends import BACKENDS, REGISTERED, open_session
from eightfold.runtime.backends.base import SessionOptions

RUNS = 3
TIMEOUT_S = 120.0
MIB = 2**20
MODULES = "EIGHTFOLD_BACKENDS"
UNKNOWN_BACKEND = 3  # exit code
# A batch is not tried where it would leave less than this share of the memory that is free.
RESERVE = 0.1
# An estimate from smaller batches counts only where it exceeds the free memory by so much.
CLEARLY = 1.2


@dataclass(frozen=True)
class MemoryProbe:
    """Outcome of loading a model and running it three times in a process of its own.

    Attributes:
        peak_bytes: resident memory that this added, at its peak; None where it was not measured.
        failed: why the model cannot be measured here; "" where it can.
    """

    peak_bytes: int | None = None
    failed: str = ""


def peak_memory_bytes(path: Path, backend: str, threads: int | None = None) -> int | None:
    """Resident memory that loading a model and running it three times adds, at its peak; None where it fails."""
    return probe_memory(path, backend, threads).peak_bytes


def probe_memory(path: Path, backend: str, threads: int | None = None) -> MemoryProbe:
    """Load and run a model in a process of its own, which may be killed for its memory without loss here."""
    command = [sys.executable, "-m", "eightfold.runtime.bench.peak_memory", backend, str(path)]
    command += [] if threads is None else [str(threads)]
    environment = {**os.environ, MODULES: ",".join(REGISTERED)}
    free = free_bytes()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)
    except (OSError, subprocess.SubprocessError):
        return MemoryProbe()
    if done.returncode == 0:
        return MemoryProbe(int(done.stdout))
    if done.returncode == UNKNOWN_BACKEND:
        return MemoryProbe()
    if done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        needs = "" if free is None else f": needs more than {free // MIB} MiB"
        return MemoryProbe(failed=f"does not fit{needs} (its process was killed)")
    return MemoryProbe(failed=_reason(done.stderr))


def _reason(stderr: str) -> str:
    """The last line of a traceback, without the name of our own error class."""
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "failed without a word")
    name, colon, said = last.partition(": ")
    if "MemoryError" in name or "Failed to allocate" in last or "bad allocation" in last:
        free = free_bytes()
        return "does not fit" + ("" if free is None else f": needs more than {free // MIB} MiB")
    return said if colon and name.startswith("eightfold.") else last


def estimated_bytes(known: Sequence[tuple[int, int]], batch: int) -> int | None:
    """Memory at a batch size by the line through the two largest (batch, bytes) measured; None with fewer than two."""
    if len(known) < 2:
        return None
    (first, low), (second, high) = sorted(known)[-2:]
    if second == first:
        return None
    return round(high + (high - low) / (second - first) * (batch - second))


def refusal(estimate: int | None) -> str:
    """Reason not to try a batch of this estimated memory; "" if it may fit."""
    free = free_bytes()
    if estimate is None or free is None or estimate < free * (1 - RESERVE) * CLEARLY:
        return ""
    return f"does not fit: needs about {estimate // MIB} MiB, and {free // MIB} MiB are free"


def free_bytes() -> int | None:
    """Memory that this process may still take, by the kernel and its control group; None where neither tells."""
    found = [_meminfo(), _cgroup()]
    return min((each for each in found if each is not None), default=None)


def _meminfo() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
        return int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None


def _cgroup() -> int | None:
    """Free bytes below the limit of a container (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def _grown_bytes(path: Path, backend: str, options: SessionOptions) -> int:
    """The backend's own library counts: a device that runs one model pays for it as well."""
    before = _peak_bytes()
    slot = open_session(path, backend, options).new_slot()
    for array in slot.inputs.values():
        array.fill(1)  # memory that was never written takes none
    for _ in range(RUNS):
        slot.run()
    return _peak_bytes() - before


def _peak_bytes() -> int:
    """The highest resident size so far. Linux's ru_maxrss would do, had it not the parent's size as its start."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _volunteer() -> None:
    """Let the kernel choose this process where memory runs out, and not the one that waits for it."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return


def main() -> None:
    _volunteer()
    for module in filter(None, os.environ.get(MODULES, "").split(",")):
        importlib.import_module(module)
    backend, path, *threads = sys.argv[1:]
    if backend not in BACKENDS:  # registered by the program that asks, not by a module
        sys.exit(UNKNOWN_BACKEND)
    options = SessionOptions(threads=int(threads[0]) if threads else None)
    print(_grown_bytes(Path(path), backend, options))


if __name__ == "__main__":
    main()
