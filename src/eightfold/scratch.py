"""Folders for files that last as long as the work on them, in the system's place for temporary ones (TMPDIR). A process
that is killed leaves its own behind; whoever makes the next one removes that. Imports nothing of eightfold.

A folder's owner holds a lock on it, which ends with the process however that ends: what is not locked is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

PREFIX = "eightfold-scratch-"
# Longer than it takes to lock a folder that was just made.
YOUNG_S = 60.0


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new empty folder, removed with all in it at the end of the context."""
    folder, lock = _made()
    try:
        yield folder
    except OSError as error:
        if error.filename is None:  # a write that found the disk full does not know where it was
            error.filename = str(folder)
        raise
    finally:
        _remove(folder, lock)


def scratch_folder_of(owner: object) -> Path:
    """A new empty folder, removed with the last reference to `owner`."""
    folder, lock = _made()
    weakref.finalize(owner, _remove, folder, lock)
    return folder


def _made() -> tuple[Path, int | None]:
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    return folder, _lock(folder)


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        if _is_old_and_ours(folder) and (lock := _lock(folder)) is not None:
            _remove(folder, lock)


def _is_old_and_ours(folder: Path) -> bool:
    try:
        state = folder.lstat()
    except OSError:  # another process was faster
        return False
    return state.st_uid == os.getuid() and time.time() - state.st_mtime > YOUNG_S


def _lock(folder: Path) -> int | None:
    """An open descriptor that holds the lock; None where another has it, or where this file system has no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(folder: Path, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)
