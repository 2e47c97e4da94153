"""Measures a model's peak memory in a process of its own: within one process, models share freed memory.

Run as a program: `python -m eightfold.runtime.bench.peak_memory BACKEND FILE [THREADS]` prints the bytes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import SessionOptions

RUNS = 3
TIMEOUT_S = 120.0


def peak_memory_bytes(path: Path, backend: str, threads: int | None = None) -> int | None:
    """Resident memory that loading a model and running it three times adds, at its peak; None where it fails."""
    command = [sys.executable, "-m", "eightfold.runtime.bench.peak_memory", backend, str(path)]
    command += [] if threads is None else [str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return int(done.stdout)


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


def main() -> None:
    """Print the bytes that the model named by the arguments takes."""
    backend, path, *threads = sys.argv[1:]
    options = SessionOptions(threads=int(threads[0]) if threads else None)
    print(_grown_bytes(Path(path), backend, options))


if __name__ == "__main__":
    main()
