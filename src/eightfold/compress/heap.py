"""The C library's heap, told to give large blocks back."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # from glibc's malloc.h
THRESHOLD_BYTES = 1 << 20


def return_freed_memory() -> None:
    """Let this process return every freed block of 1 MiB or more to the system at once, where the C library is glibc.

    By default glibc learns from the first large tensor freed to serve the next ones from a heap, one for each thread;
    many forward passes on threads of their own then hold several times what their tensors need.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library has no mallopt
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, THRESHOLD_BYTES)
