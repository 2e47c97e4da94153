"""Finds the files that an ONNX graph refers to, in its bytes: devices have no `onnx` package.

Backends follow the locations of external weights, some of them out of the folder and some even into the memory of the
process, and take what lies beside a graph for its weights. So whoever loads a graph from others looks here first.
Only the skeleton is read: weights are stepped over, however large they are.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eightfold.errors import ModelError
from eightfold.files import refuse_lfs_pointer

# onnx.proto: message -> number of a field -> the message in it, for every way that leads to a tensor's external data.
WAYS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
ENTRY_KEY, ENTRY_VALUE = 1, 2
# Protobuf's wire types; the groups of old (3 and 4) do not occur in ONNX.
VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT_BYTES = 10
# Some twenty times what the largest real graphs have; a hostile file could have hundreds of millions.
MOST_FIELDS = 2_000_000
LONGEST_ENTRY_BYTES = 1 << 16
LONGEST_NUMBER_DIGITS = 18  # so that two of them fit into 64 bits when added

Bytes = bytes | mmap.mmap


class NotOnnxError(ValueError):
    """The bytes are no ONNX graph; the message completes "is damaged: ..."."""


@dataclass(frozen=True)
class ExternalReference:
    """Part of a file that holds a tensor. `length` is None for all that follows `offset`. Both are bytes."""

    location: str
    offset: int = 0
    length: int | None = None

    @property
    def end_bytes(self) -> int:
        """Least size of the file, in bytes."""
        return self.offset + (self.length or 0)


def external_references(path: Path) -> list[ExternalReference]:
    """Every reference to a further file in an ONNX file, in subgraphs, functions and attributes as well.

    Raises NotOnnxError where the file cannot be followed, or holds a reference that readers might take differently.
    """
    with path.open("rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return references_in(data)
        except ValueError as error:  # an empty file cannot be mapped
            raise error if isinstance(error, NotOnnxError) else NotOnnxError("it is empty") from None


def require_weights(path: Path) -> None:
    """Large networks lie in two files, of which one is easily left behind: raises ModelError with the name of that."""
    try:
        refuse_lfs_pointer(path)
        names = {reference.location for reference in external_references(path)}
    except (NotOnnxError, OSError):
        return
    absent = sorted(name for name in names if not _is_there(path.parent / name))
    if absent:
        shown = f"{absent[0]:.100}"
        raise ModelError(
            f"{path} has its weights in {shown}, which is missing",
            allowed="an ONNX file with all its weight files beside it",
            remedy=f"copy {shown} into {path.parent}",
        )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no file can have such a name
        return False


def references_in(data: Bytes) -> list[ExternalReference]:
    """`external_references` of the bytes of an ONNX file."""
    found: list[ExternalReference] = []
    fields = 0
    waiting = [("ModelProto", 0, len(data))]
    while waiting:
        message, begin, end = waiting.pop()
        ways = WAYS[message]
        entries: list[tuple[int, int]] = []
        for number, start, stop in _fields(data, begin, end):
            fields += 1
            if fields > MOST_FIELDS:
                raise NotOnnxError(f"it has more than {MOST_FIELDS} fields")
            inner = ways.get(number)
            if inner == "StringStringEntryProto":
                entries.append(_short(start, stop))
            elif inner:
                waiting.append((inner, start, stop))
        if entries:
            found.append(_reference([_entry(data, *entry) for entry in entries]))
    return found


def _short(begin: int, end: int) -> tuple[int, int]:
    if end - begin > LONGEST_ENTRY_BYTES:
        raise NotOnnxError(f"the location of a tensor takes {end - begin} bytes")
    return begin, end


def _fields(data: Bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, first byte, byte after the last) of each sized field of a message; number 0 for other fields."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise NotOnnxError("a field has no number")
        if kind == SIZED:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise NotOnnxError("a field is cut off")
            yield number, at, at + size
            at += size
            continue
        if kind == VARINT:
            _, at = _varint(data, at, end)
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise NotOnnxError(f"a field has wire type {kind}")
        if at > end:
            raise NotOnnxError("a field is cut off")
        yield 0, at, at


def _varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = 0
    for place in range(at, min(end, at + LONGEST_VARINT_BYTES)):
        byte = data[place]
        value |= (byte & 0x7F) << 7 * (place - at)
        if byte < 0x80 and value >> 64 == 0:
            return value, place + 1
    raise NotOnnxError("a number is cut off")


def _entry(data: Bytes, begin: int, end: int) -> tuple[str, str]:
    """Key and value. Of a field that occurs twice the last counts, as in protobuf; no two texts become the same."""
    texts = {
        number: data[start:stop].decode(errors="surrogateescape") for number, start, stop in _fields(data, begin, end)
    }
    return texts.get(ENTRY_KEY, ""), texts.get(ENTRY_VALUE, "")


def _reference(entries: list[tuple[str, str]]) -> ExternalReference:
    words = dict(entries)
    if len(words) < len(entries) or not words.get("location"):
        raise NotOnnxError("a tensor does not state its location exactly once")
    numbers = {key: words[key] for key in ("offset", "length") if key in words}
    for key, text in numbers.items():
        if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER_DIGITS):
            raise NotOnnxError(f"the {key} of a tensor is {text!r:.40}")
    # Some writers put 0 for "all of it".
    return ExternalReference(
        words["location"], int(numbers.get("offset", "0")), int(numbers.get("length", "0")) or None
    )
