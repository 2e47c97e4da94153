"""Digests of files and atomic writes. Imports only errors of eightfold."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from eightfold.errors import ModelError, UsageError

PathLike = str | Path
# <fcntl.h> and <linux/fs.h>.
AT_FDCWD = -100
RENAME_EXCHANGE = 2
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
LFS_HEAD = b"version https://git-lfs.github.com/spec/"
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".npy", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# The names that `atomic_path` and `atomic_directory` give until all is written.
TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}\.tmp.*", re.DOTALL)


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(path: PathLike) -> str | None:
    """SHA-256 of a file, or of a folder's names and contents, behind links too; None if there is nothing."""
    path = Path(path)
    if path.is_file():
        return sha256_of_file(path)
    if not path.is_dir():
        return None
    files = sorted(_files_below(path, frozenset()))
    lines = [f"{file.relative_to(path).as_posix()} {sha256_of_file(file)}" for file in files]
    return sha256_of_bytes("\n".join(lines).encode())


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Every file of a folder and of those in it. A link back to one of the folders `above` is not followed."""
    real = folder.resolve()
    if real in above:
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files_below(entry, above | {real})
        elif entry.is_file():
            yield entry


def absolute(path: PathLike) -> Path:
    """The path from the root, under the name that it has: a link to a file or folder stays one.

    `..` behind a link leads to the folder above its target, as the system has it.
    """
    path = Path(path)
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def refuse_lfs_pointer(path: PathLike) -> None:
    """Raise ModelError for the few lines of text that Git LFS keeps in the place of a large file."""
    with Path(path).open("rb") as stream:
        if stream.read(len(LFS_HEAD)) == LFS_HEAD:
            raise ModelError(
                f"{path} is a Git LFS pointer, not the file itself", remedy="run in its repository: git lfs pull"
            )


def require_model_file(path: PathLike, kind: str, *, allowed: str) -> None:
    """Raises ModelError where there is no such file, or a folder of that name."""
    if Path(path).is_dir():
        raise ModelError(f"{path} is a folder, and no {kind}", allowed=allowed, remedy="name the file in it")
    if not Path(path).is_file():
        raise ModelError(f"no {kind} {path}", allowed=allowed, remedy="check the path")


def require_output(path: PathLike | None, *, reads: Iterable[PathLike | None] = ()) -> None:
    """Refuse, before the work and not behind it, a file's name that cannot be written or would cost what is read.

    Args:
        path: what is to be written; None: nothing is.
        reads: what the work reads. What is no path of a file there, such as a network's name, is passed over.

    Raises:
        UsageError: `path` is one of `reads` or an image in a folder of them, no file, or in no folder that can be
            written.
    """
    if path is None:
        return
    path = Path(path)
    _check_file(path)
    if path.exists() and any(each is not None and _same(path, Path(each)) for each in reads):
        raise UsageError(f"{path} is an input and would be overwritten", allowed="another output name")
    if (
        path.is_file()
        and path.suffix.lower() in IMAGE_SUFFIXES
        and any(each and _lies_in(path, Path(each)) for each in reads)
    ):
        raise UsageError(
            f"{path} lies in a folder that is read, and would be overwritten", allowed="another output name"
        )
    require_folder_for(path)


def require_folder_for(path: PathLike) -> None:
    """Refuse a name in a folder that is none, or that cannot be written. Nothing is made."""
    above = next(folder for folder in Path(path).absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"cannot write {path}: {above} is a file", allowed="a name in a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: no permission in {above}", allowed="a folder that you may write in")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # a name that is no file's
        return False


def _lies_in(path: Path, folder: Path) -> bool:
    return folder.is_dir() and path.resolve().is_relative_to(folder.resolve())


def _check_file(path: Path) -> None:
    if path.exists() and not path.is_file():  # a rename would put a plain file in the place of a device
        raise UsageError(
            f"cannot write {path}: it is a {'directory' if path.is_dir() else 'device or pipe'}",
            allowed="the name of a file, new or existing",
        )


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any exception.

    The temporary name keeps the suffix, because some writers choose the format by it.
    """
    path = Path(path)
    _check_file(path)
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
    require_replaceable(path, replaces)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        _give_usual_modes(temporary)
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


def _give_usual_modes(folder: Path) -> None:
    """Modes by the umask for a folder and all in it, as libraries of different habits wrote them."""
    allowed = ~_umask()
    folder.chmod(0o777 & allowed)
    for entry in folder.rglob("*"):
        if not entry.is_symlink():
            executable = entry.stat().st_mode & 0o111
            entry.chmod((0o777 if entry.is_dir() else 0o666 | executable) & allowed)


def remove_temporaries(directory: PathLike) -> None:
    """Remove, everywhere below a directory, the unfinished files and folders of a process that was killed.

    Only for who knows, by a lock, that no other process writes there.
    """
    for entry in sorted(Path(directory).rglob(".*")):
        if not TEMPORARY.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)  # it may have been in a folder that is gone


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories take each other's name at once, so that a kill finds either; False where that cannot be."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, Linux
    if rename is None:
        return False
    return bool(rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)


def require_replaceable(path: Path, known_by: Collection[str] | None) -> None:
    """Refuse a directory's name that `atomic_directory` would not put its own in the place of."""
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
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: PathLike, text: str) -> None:
    """Write a UTF-8 file atomically."""
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
