"""Zips that `zipfile` or other tools make or take, and what a reader of bundles does with each: it must read what
whole tools write, and refuse what two readers could read in two ways."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from unittest import mock

# PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
LOCAL_BYTES, ENTRY_BYTES = 30, 46
END = struct.Struct("<4s6xH2IH")  # signature; entries, bytes and offset of the directory; bytes of the comment
Zip = Callable[[dict[str, bytes]], bytes]


def plain(files: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Streamed(BytesIO):
    """What cannot be rewound has its sizes behind the data."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("not seekable")

    def tell(self) -> int:
        raise OSError("not seekable")


def streamed(files: dict[str, bytes]) -> bytes:
    buffer = Streamed()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@contextmanager
def small_limits(size: int, count: int) -> Iterator[None]:
    """`zipfile` uses zip64 from here on."""
    with mock.patch.multiple(zipfile, ZIP64_LIMIT=size, ZIP_FILECOUNT_LIMIT=count):
        yield


def zip64(files: dict[str, bytes]) -> bytes:
    with small_limits(16, 1):
        return plain(files)


def zip64_full(files: dict[str, bytes]) -> bytes:
    """As a writer that leaves nothing in the short record."""
    data = bytearray(zip64(files))
    data[-END.size + 8 : -2] = b"\xff" * 12
    return bytes(data)


def write_behind_a_hole(path: Path, files: dict[str, bytes], hole: int) -> None:
    """An archive whose members lie behind so many bytes; they take no room on the disk."""
    with path.open("wb") as file:
        file.truncate(hole)
    with zipfile.ZipFile(path, "a") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def with_directories(files: dict[str, bytes]) -> bytes:
    return plain({"onnx/": b"", **files})


def with_further_names(files: dict[str, bytes]) -> bytes:
    data = plain({**files, "tschüß": b"", "x\1y": b"1"})
    return data.replace(b"x\1y", b"\xff\0\xfe")


SOUND: dict[str, Zip] = {
    "plain": plain,
    "deflated": lambda files: plain(files, zipfile.ZIP_DEFLATED),
    "with a comment": lambda files: plain(files, comment=b"by hand"),
    "streamed": streamed,
    "zip64": zip64,
    "zip64 alone": zip64_full,
    "with directories": with_directories,
    "with an extra field": lambda files: with_extra(files, b"\x55\x54\x01\0x"),
    "with further names": with_further_names,
}


def entry_at(data: bytes, offset: int, value: bytes, place: int = 0) -> bytes:
    """`value` in an entry of the directory."""
    start = -1
    for _ in range(place + 1):
        start = data.index(b"PK\1\2", start + 1)
    return changed(data, start + offset, value)


def end_at(data: bytes, offset: int, value: bytes) -> bytes:
    return changed(data, data.rindex(b"PK\5\6") + offset, value)


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def other_local_name(files: dict[str, bytes]) -> bytes:
    data = plain(files)
    return changed(data, LOCAL_BYTES, b"M")


def longer_local_name(files: dict[str, bytes]) -> bytes:
    """The local header's name goes on in what the directory calls data."""
    data = plain(files)
    return changed(data, 26, struct.pack("<H", len(next(iter(files))) + 1))


def name_behind_zero(files: dict[str, bytes]) -> bytes:
    first = next(iter(files))
    longer = f"{first}.x"
    return plain({longer if name == first else name: data for name, data in files.items()}).replace(
        f"{first}.x".encode(), f"{first}\0x".encode()
    )


def beside_the_directory(files: dict[str, bytes]) -> bytes:
    data = plain(files)
    at = data.rindex(b"PK\5\6")
    return data[:at] + bytes(4) + data[at:]


def grown_directory(files: dict[str, bytes]) -> bytes:
    """Bytes behind the last entry that the directory counts as its own."""
    data = beside_the_directory(files)
    size = END.unpack_from(data, data.rindex(b"PK\5\6"))[2]
    return end_at(data, 12, struct.pack("<I", size + 4))


def damaged_zip64(offset: int, value: bytes) -> Zip:
    def make(files: dict[str, bytes]) -> bytes:
        data = zip64(files)
        return changed(data, data.rindex(b"PK\6\6") + offset, value)

    return make


def with_extra(files: dict[str, bytes], extra: bytes) -> bytes:
    """An extra field in the directory's first entry."""
    data = plain(files)
    at = data.index(b"PK\1\2") + ENTRY_BYTES + len(next(iter(files)))
    data = entry_at(data[:at] + extra + data[at:], 30, struct.pack("<H", len(extra)))
    size = END.unpack_from(data, data.rindex(b"PK\5\6"))[2]
    return end_at(data, 12, struct.pack("<I", size + len(extra)))


def without_zip64_extra(files: dict[str, bytes]) -> bytes:
    """Sizes are said to stand in a field that is another one."""
    data = zip64(files)
    at = data.index(b"PK\1\2") + ENTRY_BYTES + len(next(iter(files)))
    return changed(data, at, struct.pack("<H", 0x5455))


ODD: dict[str, Zip] = {
    "something before": lambda files: b"#!/bin/sh\n" + plain(files),
    "something behind": lambda files: plain(files) + b"x",
    "a comment like a record": lambda files: plain(files, comment=b"PK\5\6" + bytes(30)),
    "a comment that ends like a record": lambda files: plain(files, comment=b"see PK\5\6"),
    "an entry that goes on behind the directory": lambda files: entry_at(
        plain(files), 32, b"\x05\0", place=len(files) - 1
    ),
    "of a later version": lambda files: entry_at(plain(files), 6, b"\x40"),
    "an extra field cut off": lambda files: with_extra(files, b"\x55\x54\x05\0x"),
    "a comment cut off": lambda files: plain(files, comment=b"by hand")[:-1],
    "one entry more": lambda files: end_at(plain(files), 10, struct.pack("<H", len(files) + 1)),
    "one entry less": lambda files: end_at(plain(files), 10, struct.pack("<H", len(files) - 1)),
    "a directory that begins earlier": lambda files: end_at(plain(files), 16, bytes(4)),
    "bytes beside the directory": beside_the_directory,
    "bytes in the directory": grown_directory,
    "no entry": lambda files: entry_at(plain(files), 0, b"PK\1\3"),
    "encrypted": lambda files: entry_at(plain(files), 8, b"\x01"),
    "a patch": lambda files: entry_at(plain(files), 8, b"\x20"),
    "strongly encrypted": lambda files: entry_at(plain(files), 8, b"\x40"),
    "masked": lambda files: entry_at(plain(files), 9, b"\x20"),
    "bzip2": lambda files: plain(files, zipfile.ZIP_BZIP2),
    "stored in less": lambda files: entry_at(plain(files), 20, b"\x01\0\0\0"),
    "deflated to too much": lambda files: entry_at(plain(files, zipfile.ZIP_DEFLATED), 24, b"\xff\xff\xff\x7f"),
    "beyond the end": lambda files: entry_at(plain(files), 42, b"\xff\xff\xff\x7f"),
    "another file's header": lambda files: entry_at(plain(files), 42, bytes(4), place=1),
    "another local name": other_local_name,
    "a longer local name": longer_local_name,
    "a name behind a zero": name_behind_zero,
    "zip64 of another count": damaged_zip64(32, b"\x01"),
    "zip64 of another size": damaged_zip64(40, b"\x01\x01"),
    "zip64 of another offset": damaged_zip64(48, b"\x01\x01"),
    "no zip64 record": damaged_zip64(0, b"PK\6\5"),
    "no zip64 sizes": without_zip64_extra,
    "cut off": lambda files: plain(files)[:-30],
    "empty": lambda files: b"",
}
