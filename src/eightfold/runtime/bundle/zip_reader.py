"""Read the members of a zip: stored or deflated, not encrypted. The C++ runtime reads by the same rules (zip.cpp).

`zipfile` makes the best of what it is given: of something before the archive or behind it, of entries that do not fill
the directory or are not all that it counts, of names that go on behind a zero byte. Readers that guess can be shown
different files by one archive; here all that a zip says about itself has to fit together. Checksums are not looked at:
what comes out of a bundle is held to its SHA-256.

The records are those of PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.14 to 4.3.16.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

LOCAL = struct.Struct("<4s22x2H")  # signature; bytes of name and extra field
ENTRY = struct.Struct("<4s4x2H8x2I3H4x2I")  # signature, flags, method; sizes; bytes of name and more; mode, offset
END = struct.Struct("<4s6xH2IH")  # signature; entries, bytes and offset of the directory; bytes of the comment
END_LOCATOR = struct.Struct("<4s4xQ4x")  # signature; offset of the zip64 record
END_64 = struct.Struct("<4s28x3Q")  # signature; entries, bytes and offset of the directory
EXTRA = struct.Struct("<2H")  # what it is; bytes that follow
LONGEST_COMMENT = 0xFFFF
STORED, DEFLATED = 0, 8
# Encrypted in one way or another, or a patch of another file (4.4.4: bits 0, 5, 6 and 13).
UNREADABLE_FLAGS = 0x2061
# Deflate cannot pack better than this; a member that claims more lies.
BEST_RATIO = 1032
# Where these stand, the value is in a record of zip64.
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
ZIP64_EXTRA = 1
CHUNK_BYTES = 1 << 20


class ZipError(Exception):
    """An archive, or a member of it, that cannot be read; says why."""


@dataclass(frozen=True)
class Member:
    """Entry of a file in the archive's directory."""

    name_bytes: bytes
    size: int
    packed_size: int
    header_offset: int
    deflated: bool
    readable: bool
    regular: bool


@dataclass(frozen=True)
class _Directory:
    count: int
    size: int
    offset: int


class ZipReader:
    """An open archive. Raises ZipError where it is none, or not one that every runtime reads alike.

    Attributes:
        members: its files by name; a name that is no UTF-8 keeps its bytes as surrogates.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._size = self._file.seek(0, os.SEEK_END)
            self._directory = self._find_directory()
            self.members = self._read_members()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the archive."""
        self._file.close()

    def chunks(self, member: Member) -> Iterator[bytes]:
        """Content of a member, which is as long as the directory says. Raises ZipError if it is not."""
        left = member.size
        packed = self._packed(member)
        for chunk in _inflated(packed) if member.deflated else packed:
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        if left:
            raise ZipError("its size is not the stated one")

    def _find_directory(self) -> _Directory:
        """The last end record whose comment is the rest of the file."""
        start = max(0, self._size - END.size - LONGEST_COMMENT)
        tail = self._read(start, self._size - start)
        at = len(tail) - END.size + 1
        while (at := tail.rfind(b"PK\5\6", 0, max(0, at) + 3)) >= 0:
            _, count, size, offset, comment = END.unpack_from(tail, at)
            if at + END.size + comment == len(tail):
                return self._whole(_Directory(count, size, offset), start + at)
        raise ZipError("not a zip, or cut off")

    def _whole(self, short: _Directory, end: int) -> _Directory:
        """With the numbers of a zip64 record, where there is one before the end record."""
        at = end - END_LOCATOR.size
        locator = self._read(at, END_LOCATOR.size) if at >= 0 else b""
        if locator.startswith(b"PK\6\7"):
            end = END_LOCATOR.unpack(locator)[1]
            if end + END_64.size != at:
                raise ZipError("a damaged zip64 record")
            short = _zip64(short, self._read(end, END_64.size))
        if short.offset + short.size != end:
            raise ZipError("its directory does not end where its last records begin")
        return short

    def _read_members(self) -> dict[str, Member]:
        data = self._read(self._directory.offset, self._directory.size)
        members: dict[str, Member] = {}
        at = 0
        for _ in range(self._directory.count):
            name, member, at = _entry(data, at)
            if name.endswith("/"):
                continue
            _check(name, member, self._size)
            if name in members:
                raise ZipError("it holds two files of one name")
            members[name] = member
        if at != len(data):
            raise ZipError("a damaged directory")
        return members

    def _packed(self, member: Member) -> Iterator[bytes]:
        header = self._read(member.header_offset, LOCAL.size)
        signature, name_bytes, extra_bytes = LOCAL.unpack(header)
        at = member.header_offset + LOCAL.size
        if signature != b"PK\3\4" or self._read(at, name_bytes) != member.name_bytes:
            raise ZipError("it does not lie where the directory says")
        at += name_bytes + extra_bytes
        end = at + member.packed_size
        if end > self._directory.offset:
            raise ZipError("it goes on behind the files")
        while at < end:
            yield self._read(at, min(CHUNK_BYTES, end - at))
            at += CHUNK_BYTES

    def _read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise ZipError("cut off")
        return data


def _zip64(short: _Directory, record: bytes) -> _Directory:
    signature, count, size, offset = END_64.unpack(record)
    alike = short.count in (count, FULL_16) and short.size in (size, FULL_32) and short.offset in (offset, FULL_32)
    if signature != b"PK\6\6" or not alike:
        raise ZipError("a damaged zip64 record")
    return _Directory(count, size, offset)


def _entry(data: bytes, at: int) -> tuple[str, Member, int]:
    """The name of the directory's entry at `at`, the member, and where the next entry begins."""
    if len(data) - at < ENTRY.size:
        raise ZipError("a damaged directory")
    signature, flags, method, packed, size, *lengths, attributes, offset = ENTRY.unpack_from(data, at)
    ends = list(accumulate(lengths, initial=at + ENTRY.size))
    if signature != b"PK\1\2" or ends[-1] > len(data):
        raise ZipError("a damaged directory")
    name = data[ends[0] : ends[1]]
    size, packed, offset = _large([size, packed, offset], data[ends[1] : ends[2]])
    readable = method in (STORED, DEFLATED) and not flags & UNREADABLE_FLAGS
    regular = stat.S_IFMT(attributes >> 16) in (0, stat.S_IFREG)
    member = Member(name, size, packed, offset, method == DEFLATED, readable, regular)
    return name.decode(errors="surrogateescape"), member, ends[-1]


def _large(values: Sequence[int], extra: bytes) -> list[int]:
    """Those that a field of 32 bits has no room for stand in the extra field, one after the other (4.5.3)."""
    if FULL_32 not in values:
        return list(values)
    record, result = _zip64_extra(extra), []
    for value in values:
        if value == FULL_32:
            if len(record) < 8:
                raise ZipError("a damaged directory")
            value, record = int.from_bytes(record[:8], "little"), record[8:]
        result.append(value)
    return result


def _zip64_extra(extra: bytes) -> bytes:
    """Empty where there is none."""
    while len(extra) >= EXTRA.size:
        kind, count = EXTRA.unpack_from(extra)
        if kind == ZIP64_EXTRA:
            return extra[EXTRA.size : EXTRA.size + count]
        extra = extra[EXTRA.size + count :]
    return b""


def _check(name: str, member: Member, archive_size: int) -> None:
    if not member.readable:
        raise ZipError(f"{name} is encrypted or packed in an unknown way")
    if member.deflated:
        fits = member.size <= (member.packed_size + 1) * BEST_RATIO
    else:
        fits = member.size == member.packed_size
    if not fits or max(member.header_offset, member.packed_size) > archive_size:
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
