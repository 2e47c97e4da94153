"""Members of a zip: stored or deflated, not encrypted. The C++ runtime reads by the same rules (zip.cpp).

`zipfile` reads the directory. It makes the best of what it is given: of something before the archive or behind it, of
entries that are not all that the directory counts, of two files of one name, of names that go on behind a zero byte.
Readers that guess can be shown different files by one archive, so these are refused here. Checksums are not looked at:
the content of a bundle is held to its SHA-256.

Records: PKWARE's APPNOTE 6.3.10, sections 4.3.7 and 4.3.14 to 4.3.16.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LOCAL = struct.Struct("<4s22x2H")  # signature; bytes of name and extra field
ENTRY = struct.Struct("<28x3H12x")  # bytes of name, extra field and comment
END = struct.Struct("<4s6xH2IH")  # signature; entries, bytes and offset of the directory; bytes of the comment
END_LOCATOR = struct.Struct("<4s16x")  # signature
END_64 = struct.Struct("<4s28x3Q")  # signature; entries, bytes and offset of the directory
# Encrypted in one way or another, or a patch of another file (4.4.4: bits 0, 5, 6 and 13).
UNREADABLE_FLAGS = 0x2061
UTF8_FLAG = 0x800
# The best that deflate can do; a member that claims more lies.
BEST_RATIO = 1032
# Values of a record whose true ones are in a record of zip64.
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
CHUNK_BYTES = 1 << 20


class ZipError(Exception):
    """An archive or a member cannot be read."""


@dataclass(frozen=True)
class ZipMember:
    """A file of the archive, as the directory states it."""

    name_bytes: bytes
    size: int
    packed_size: int
    header_offset: int
    deflated: bool
    regular: bool


class ZipReader:
    """An open archive. Raises ZipError where it is none, or not one that every runtime reads alike.

    Attributes:
        members: its files by name; a name that is no UTF-8 keeps its bytes as surrogates.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._size = self._file.seek(0, os.SEEK_END)
            archive = _opened(self._file)
            self._directory_offset = archive.start_dir
            self._check_ends(archive)
            self.members = _members(archive.infolist(), self._size)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file. Members can no longer be read."""
        self._file.close()

    def chunks(self, member: ZipMember) -> Iterator[bytes]:
        """Content of a member. Raises ZipError if its length differs from the directory's."""
        left = member.size
        packed = self._packed(member)
        for chunk in _inflated(packed) if member.deflated else packed:
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        if left:
            raise ZipError("its size is not the stated one")

    def _check_ends(self, archive: zipfile.ZipFile) -> None:
        """The archive is the whole file, and the directory counts all of its entries."""
        end = self._size - END.size - len(archive.comment)
        signature, *stated, comment = END.unpack(self._read(end, END.size))
        if signature != b"PK\5\6" or comment != len(archive.comment):
            raise ZipError("not a zip, or cut off")
        at = end - END_LOCATOR.size
        if at >= 0 and END_LOCATOR.unpack(self._read(at, END_LOCATOR.size)) == (b"PK\6\7",):
            end = at - END_64.size
            signature, *whole = END_64.unpack(self._read(end, END_64.size))
            full = (FULL_16, FULL_32, FULL_32)
            if signature != b"PK\6\6" or any(a not in (b, c) for a, b, c in zip(stated, whole, full, strict=True)):
                raise ZipError("a damaged zip64 record")
            stated = whole
        if stated != [len(archive.infolist()), end - archive.start_dir, archive.start_dir]:
            raise ZipError("a damaged directory, or something before the archive")
        self._check_last_entry(archive, end)

    def _check_last_entry(self, archive: zipfile.ZipFile, end: int) -> None:
        """`zipfile` takes an entry whose name or further fields go on behind the directory."""
        for entry in archive.infolist()[-1:]:
            size = len(_member(entry).name_bytes) + len(entry.extra) + len(entry.comment)
            if sum(ENTRY.unpack(self._read(end - size - ENTRY.size, ENTRY.size))) != size:
                raise ZipError("a damaged directory")

    def _packed(self, member: ZipMember) -> Iterator[bytes]:
        header = self._read(member.header_offset, LOCAL.size)
        signature, name_bytes, extra_bytes = LOCAL.unpack(header)
        at = member.header_offset + LOCAL.size
        if signature != b"PK\3\4" or self._read(at, name_bytes) != member.name_bytes:
            raise ZipError("it is not at the directory's offset")
        at += name_bytes + extra_bytes
        end = at + member.packed_size
        if end > self._directory_offset:
            raise ZipError("it continues after its directory")
        while at < end:
            yield self._read(at, min(CHUNK_BYTES, end - at))
            at += CHUNK_BYTES

    def _read(self, offset: int, count: int) -> bytes:
        if offset < 0:
            raise ZipError("cut off")
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise ZipError("cut off")
        return data


def _opened(file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise ZipError(str(error) or "not a zip") from None


def _members(entries: list[zipfile.ZipInfo], archive_size: int) -> dict[str, ZipMember]:
    members: dict[str, ZipMember] = {}
    for entry in entries:
        member = _member(entry)
        name = member.name_bytes.decode(errors="surrogateescape")
        if name.endswith("/"):
            continue
        _check(name, entry, archive_size)
        if name in members:
            raise ZipError("it holds two files of one name")
        members[name] = member
    return members


def _member(entry: zipfile.ZipInfo) -> ZipMember:
    # `filename` ends at a zero byte.
    name = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8_FLAG else "cp437")
    deflated = entry.compress_type == zipfile.ZIP_DEFLATED
    regular = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
    return ZipMember(name, entry.file_size, entry.compress_size, entry.header_offset, deflated, regular)


def _check(name: str, entry: zipfile.ZipInfo, archive_size: int) -> None:
    if entry.flag_bits & UNREADABLE_FLAGS or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ZipError(f"{name} is encrypted or packed in an unknown way")
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        fits = entry.file_size <= (entry.compress_size + 1) * BEST_RATIO
    else:
        fits = entry.file_size == entry.compress_size
    if not fits or max(entry.header_offset, entry.compress_size) > archive_size:
        raise ZipError(f"{name} states sizes that cannot be")


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Raises ZipError where it is damaged or cut off."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in packed:
        while chunk and not stream.eof:
            try:
                yield stream.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise ZipError(str(error)) from None
            chunk = stream.unconsumed_tail
    yield stream.flush()  # of a last repetition that the limit cut in two
    if not stream.eof:
        raise ZipError("its packed bytes are cut off")
