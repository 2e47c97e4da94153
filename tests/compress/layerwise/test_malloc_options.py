from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from eightfold.compress.layerwise.malloc_options import return_freed_memory, share_one_heap

# Blocks that threads of their own free, with something small left alive above them.
PROGRAM = """
import sys, threading, numpy as np
from eightfold.compress.layerwise.malloc_options import return_freed_memory, share_one_heap
share_one_heap()
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
    done = subprocess.run([sys.executable, "-c", PROGRAM, wanted], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout) * resource.getpagesize()


def test_they_may_be_called_anywhere_and_twice() -> None:
    for _ in range(2):
        share_one_heap()
        return_freed_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only glibc's heap is told")
def test_threads_reuse_one_heap_and_freed_memory_goes_back() -> None:
    idle, kept, returned = (resident_bytes(wanted) for wanted in ("idle", "no", "yes"))
    assert kept - returned > 8 << 20  # there was something to give back
    assert kept - returned < 160 << 20  # but not what all four threads had taken
    assert returned - idle < 16 << 20
