from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from eightfold.compress.heap import return_freed_memory

# Large blocks freed by threads of their own: with glibc's default some of them stay in the threads' heaps.
PROGRAM = """
import sys, threading, numpy as np
from eightfold.compress.heap import return_freed_memory
if sys.argv[1] == "yes":
    return_freed_memory()
np.empty(30 << 20, dtype=np.uint8)[:] = 1
held = []
def work():
    large = [np.ones(12 << 20, dtype=np.uint8) for _ in range(8)]
    held.append(np.ones(1000, dtype=np.uint8))
    del large
for _ in range(4):
    thread = threading.Thread(target=work); thread.start(); thread.join()
print(int(open("/proc/self/statm").read().split()[1]))
"""


def resident_bytes(wanted: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, wanted], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout) * resource.getpagesize()


def test_it_may_be_called_anywhere_and_twice() -> None:
    return_freed_memory()
    return_freed_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only glibc's heap is told")
def test_freed_blocks_do_not_stay_resident() -> None:
    assert resident_bytes("yes") <= resident_bytes("no") + (8 << 20)
