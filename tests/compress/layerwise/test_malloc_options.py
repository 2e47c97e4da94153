from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from eightfold.compress.layerwise.malloc_options import VARIABLE, return_freed_memory, share_one_heap

# Blocks that threads of their own free, with something small left alive above them.
PROGRAM = """
import ctypes, sys, threading, numpy as np
if sys.argv[1] == "count":
    calls, real = [], ctypes.CDLL
    ctypes.CDLL = lambda name: type("C", (), {"mallopt": lambda self, *options: calls.append(options)})()
from eightfold.compress.layerwise.malloc_options import return_freed_memory, share_one_heap
share_one_heap()
if sys.argv[1] == "count":
    sys.exit(len(calls))
held = []
def work():
    large = [np.ones(12 << 20, dtype=np.uint8) for _ in range(8)]
    held.append(np.ones(1000, dtype=np.uint8))
    del large
for _ in range(0 if sys.argv[1] == "idle" else 4):
    thread = threading.Thread(target=work); thread.start(); thread.join()
if sys.argv[1] == "yes":
    return_freed_memory()
print(int(open("/proc/self/statm").read().split()[1]))
"""


def resident_bytes(wanted: str) -> int:
    command = [sys.executable, "-c", PROGRAM, wanted]
    environment = os.environ | {VARIABLE: "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return int(done.stdout) * resource.getpagesize()


def test_they_may_be_called_anywhere_and_twice() -> None:
    for _ in range(2):
        share_one_heap()
        return_freed_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is told on Linux alone")
@pytest.mark.parametrize(("value", "options"), [("1", 3), ("0", 0), ("", 0), (None, 0)])
def test_malloc_is_told_where_that_is_asked_for(value: str | None, options: int) -> None:
    environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
    environment |= {} if value is None else {VARIABLE: value}
    assert subprocess.run([sys.executable, "-c", PROGRAM, "count"], env=environment).returncode == options


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only glibc's heap is told")
def test_threads_reuse_one_heap_and_freed_memory_goes_back() -> None:
    idle, kept, returned = (resident_bytes(wanted) for wanted in ("idle", "no", "yes"))
    assert kept - returned > 8 << 20  # there was something to give back
    assert kept - returned < 160 << 20  # but not what all four threads had taken
    assert returned - idle < 16 << 20
