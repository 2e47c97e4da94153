"""Storage of a bundle: a directory, or a zip whose members are unpacked one by one when they are requested.

A store trusts nothing: links are refused, sizes are checked before reading, and nothing is read beyond a stated size.
"""

from __future__ import annotations

import hashlib
import os
import stat
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from eightfold.errors import BundleError, IntegrityError
from eightfold.runtime.bundle.bundle_names import MANIFEST_DIGEST_NAME, MANIFEST_NAME
from eightfold.runtime.bundle.manifest import FileEntry
from eightfold.runtime.bundle.zip_reader import ZipError, ZipMember, ZipReader
from eightfold.scratch import scratch_folder_of

CHUNK_BYTES = 1 << 20
REMEDY = "copy the bundle again from where it was made, or make it again"


class Store(ABC):
    """The files of one bundle, by name ('/' separated, relative)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all files."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Size in bytes. Raises IntegrityError when there is no such regular file."""

    @abstractmethod
    def chunks(self, name: str) -> Iterator[bytes]:
        """Content of a file, one piece after the other; little more than its size. Raises IntegrityError."""

    @abstractmethod
    def fetch(self, name: str, entry: FileEntry) -> Path:
        """A path whose content has the digest in `entry`."""

    def check_size(self, name: str, expected: int) -> None:
        """Raise IntegrityError if a file has another size."""
        seen = self.size(name)
        if seen != expected:
            raise IntegrityError(
                f"{self.path}: {name} has {seen} bytes", allowed=f"{expected}, as in the manifest", remedy=REMEDY
            )

    def read(self, name: str, limit: int) -> bytes:
        """The whole of a small file."""
        if self.size(name) > limit:
            raise BundleError(f"{self.path}: {name} has {self.size(name)} bytes", allowed=f"at most {limit}")
        return b"".join(self.chunks(name))

    def _absent(self, name: str) -> IntegrityError:
        return IntegrityError(f"{self.path}: {name} is missing", allowed="the files the manifest lists", remedy=REMEDY)

    def _unreadable(self, name: str, error: OSError) -> IntegrityError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return self._absent(name)
        return IntegrityError(f"{self.path}: {name} cannot be read ({error.strerror})", allowed="readable files")

    def _differs(self, name: str) -> IntegrityError:
        return IntegrityError(
            f"{self.path}: {name} differs from its SHA-256 in the manifest",
            allowed="files as they were written",
            remedy=REMEDY,
        )


class DirectoryStore(Store):
    """Bundles in a directory."""

    def names(self) -> list[str]:
        return [found.relative_to(self.path).as_posix() for found in self.path.rglob("*") if not found.is_dir()]

    def size(self, name: str) -> int:
        place = self.path
        for part in name.split("/"):  # a link anywhere on the way could lead out of the bundle
            place = place / part
            mode = self._mode(place, name)
            if stat.S_ISLNK(mode):
                raise IntegrityError(f"{self.path}: {name} is or lies behind a link", allowed="regular files")
        if not stat.S_ISREG(mode):
            raise IntegrityError(f"{self.path}: {name} is not a regular file", allowed="regular files")
        return place.stat().st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        left = self.size(name) + 1  # one byte more, so that a file that grows meanwhile differs from its digest
        try:
            with (self.path / name).open("rb") as stream:
                while left > 0 and (chunk := stream.read(min(CHUNK_BYTES, left))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise self._unreadable(name, error) from None

    def fetch(self, name: str, entry: FileEntry) -> Path:
        self.check_size(name, entry.bytes)
        digest = _hash(self.chunks(name))
        if digest != entry.sha256:
            raise self._differs(name)
        return self.path / name

    def _mode(self, place: Path, name: str) -> int:
        try:
            return place.lstat().st_mode
        except OSError as error:
            raise self._unreadable(name, error) from None


class ZipStore(Store):
    """Members are unpacked into a temporary directory that lives as long as the store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._zip = ZipReader(path)
        except (ZipError, OSError) as error:
            raise BundleError(
                f"{path} is not a bundle ({error})", allowed="a bundle directory or a complete .eightfold file"
            ) from None
        self._unpacked = scratch_folder_of(self)
        weakref.finalize(self, self._zip.close)

    def names(self) -> list[str]:
        return list(self._zip.members)

    def size(self, name: str) -> int:
        member = self._member(name)
        if not member.regular:
            raise IntegrityError(f"{self.path}: {name} is a link", allowed="regular files")
        return member.size

    def chunks(self, name: str) -> Iterator[bytes]:
        try:
            yield from self._zip.chunks(self._member(name))
        except (ZipError, OSError) as error:
            raise IntegrityError(f"{self.path}: {name} cannot be unpacked ({error})", remedy=REMEDY) from None

    def fetch(self, name: str, entry: FileEntry) -> Path:
        self.check_size(name, entry.bytes)
        target = Path(self._unpacked, *name.split("/"))
        digest = _hash(self._written(self.chunks(name), target))
        if digest != entry.sha256:
            target.unlink()
            raise self._differs(name)
        return target

    def _written(self, chunks: Iterator[bytes], target: Path) -> Iterator[bytes]:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as output:
                for chunk in chunks:
                    output.write(chunk)
                    yield chunk
        except OSError as error:
            raise BundleError(
                f"cannot unpack {self.path} into {self._unpacked} ({error.strerror})",
                allowed="a temporary directory with room for it",
                remedy="set TMPDIR to one, or use the bundle as a directory",
            ) from None

    def _member(self, name: str) -> ZipMember:
        try:
            return self._zip.members[name]
        except KeyError:
            raise self._absent(name) from None


def open_store(path: Path) -> Store:
    """The store of a bundle directory or file. Raises BundleError."""
    if path.is_dir():
        _require_bundle(path)
        return DirectoryStore(path)
    if path.is_file():
        return ZipStore(path)
    raise BundleError(
        f"there is no bundle at {os.fspath(path)!r}",
        allowed="a bundle directory or an .eightfold file",
        remedy="make one with: eightfold run RECIPE",
    )


def _require_bundle(folder: Path) -> None:
    """Refuse a folder of something else. One that lacks its manifest alone is a damaged bundle."""
    if (folder / MANIFEST_NAME).exists() or (folder / MANIFEST_DIGEST_NAME).exists():
        return
    inner = folder / "bundle"  # the directory of a run holds one
    raise BundleError(
        f"{folder} is a folder without {MANIFEST_NAME}",
        allowed="a bundle directory or an .eightfold file",
        remedy=f"did you mean {inner}?" if (inner / MANIFEST_NAME).is_file() else "make one with: eightfold export",
    )


def _hash(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
