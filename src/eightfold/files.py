"""Files: digests, and writes that either happen whole or not at all. Imports nothing of eightfold but errors."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from eightfold.errors import UsageError

PathLike = str | Path
# <fcntl.h> and <linux/fs.h>.
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def sha256_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: PathLike) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(path: PathLike) -> str | None:
    """SHA-256 of a file, or of a folder's names and contents; None if there is nothing."""
    path = Path(path)
    if path.is_file():
        return sha256_of_file(path)
    if not path.is_dir():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {sha256_of_file(file)}" for file in files]
    return sha256_of_bytes("\n".join(lines).encode())


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any exception.

    The temporary name keeps the suffix, because some writers choose the format by it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a rename would put a plain file in the place of a device
        raise UsageError(
            f"cannot write {path}: it is a {'directory' if path.is_dir() else 'device or pipe'}",
            allowed="the name of a file, new or existing",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # a write that found the disk full does not know where it was
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: PathLike, *, replaces: Collection[str] | None = None) -> Iterator[Path]:
    """Yield a temporary directory; put it in place of the directory `path` on success, remove it on failure.

    Args:
        path: a new name, or a directory to replace.
        replaces: names by which one knows a directory that may be replaced: one of them must be in it unless it is
            empty. None: whatever it holds is known to be ours. Without this, a mistyped name would cost a folder.
    """
    path = Path(path)
    _check_replaceable(path, replaces)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if not path.exists():
            temporary.rename(path)
        elif not _exchange(temporary, path):
            # rename() cannot replace a directory that is not empty: move the old one aside first.
            old = temporary.with_name(temporary.name + ".old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories take each other's name at once, so that a kill finds either; False where that cannot be."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, Linux
    if rename is None:
        return False
    return bool(rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)


def _check_replaceable(path: Path, known_by: Collection[str] | None) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"cannot write the directory {path}: a file has that name", allowed="another name")
    if known_by is None or not path.is_dir():
        return
    names = {entry.name for entry in path.iterdir()}
    if names and names.isdisjoint(known_by):
        raise UsageError(
            f"{path} holds other things, such as {min(names)}",
            allowed=f"a new name, an empty directory, or one with {' or '.join(sorted(known_by))} to replace",
        )


def write_bytes(path: PathLike, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: PathLike, text: str) -> None:
    write_bytes(path, text.encode())


def sync_files(directory: PathLike) -> None:
    """Have the content of every file below a directory reach the disk, as `atomic_path` does for one file."""
    for file in Path(directory).rglob("*"):
        if file.is_file():
            _sync(file)


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
