"""Limits the number of threads to those of use."""

from __future__ import annotations

import os


def most_threads() -> int:
    """With more than this a back end does nothing but switch from thread to thread, for minutes."""
    return max(16, 4 * (os.cpu_count() or 1))
