"""Options of the C library's malloc, set where `EIGHTFOLD_SHARE_HEAP=1` asks for them, and memory given back.

The options serve all threads from one heap. They hold for the whole process, of which eightfold may be a small part:
that is why they are not set by default. Without them glibc gives each thread a heap of its own, and many forward passes
on threads of their own then hold several times what their tensors need. Having every large block mapped and unmapped by
itself cures that, but the kernel then clears every page of every activation anew, which takes as long as the network
itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
VARIABLE = "EIGHTFOLD_SHARE_HEAP"
THRESHOLD_BYTES = 32 << 20  # the largest that glibc takes; larger blocks are mapped by themselves
KEPT_BYTES = 64 << 20


def share_one_heap() -> None:
    """Let threads to come take blocks of up to 32 MiB from the main heap, where each reuses what others freed.

    Does nothing unless the environment variable EIGHTFOLD_SHARE_HEAP is 1, and where the C library is not glibc. Holds
    for the rest of the process.
    """
    if os.environ.get(VARIABLE) == "1" and sys.platform == "linux":
        with suppress(AttributeError):  # another C library has no mallopt
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_ARENA_MAX, 1)
            libc.mallopt(_M_MMAP_THRESHOLD, THRESHOLD_BYTES)
            libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def return_freed_memory() -> None:
    """Give every free page of the heap back to the system, where the C library is glibc."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
