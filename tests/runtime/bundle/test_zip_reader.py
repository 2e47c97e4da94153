"""What `zipfile` writes is read; what could be read in two ways is not. tests/cpp holds the C++ runtime to the same."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.runtime.bundle.zip_reader import CHUNK_BYTES, ZipError, ZipReader
from tests.odd_zips import ODD, SOUND, Zip, plain, write_behind_a_hole

FILES = {"manifest.json": b"{}" * 40, "onnx/b1.onnx": bytes(range(256)) * 20, "empty": b""}


def contents(path: Path) -> dict[str, bytes]:
    reader = ZipReader(path)
    try:
        return {name: b"".join(reader.chunks(member)) for name, member in reader.members.items()}
    finally:
        reader.close()


@pytest.mark.parametrize("make", SOUND.values(), ids=SOUND)
def test_what_tools_write_is_read(tmp_path: Path, make: Zip) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(make(FILES))
    found = contents(path)
    assert {name: found[name] for name in FILES} == FILES


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, make: Zip) -> None:
    """But for a name behind a zero, which is just another name."""
    path = tmp_path / "x.zip"
    path.write_bytes(make(FILES))
    if make is ODD["a name behind a zero"]:
        assert contents(path).keys() == {"manifest.json\0x", "onnx/b1.onnx", "empty"}
        return
    with pytest.raises(ZipError):
        contents(path)


def test_names_that_are_no_text_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(SOUND["with further names"](FILES))
    assert contents(path).keys() - FILES.keys() == {"tschüß", "\udcff\0\udcfe"}


@given(data=st.binary(max_size=400), repeats=st.sampled_from([1, 700, 9000]))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, data: bytes, repeats: int) -> None:
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    path.write_bytes(plain({"x": data * repeats}, zipfile.ZIP_DEFLATED))
    assert contents(path) == {"x": data * repeats}


def test_a_member_is_unpacked_piece_by_piece(tmp_path: Path) -> None:
    path, size = tmp_path / "x.zip", 5 * CHUNK_BYTES
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path.write_bytes(plain({"x": bytes(size)}, method))
        reader = ZipReader(path)
        pieces = [len(chunk) for chunk in reader.chunks(reader.members["x"])]
        reader.close()
        assert sum(pieces) == size
        assert max(pieces) <= CHUNK_BYTES


def test_members_beyond_four_gib(tmp_path: Path) -> None:
    write_behind_a_hole(tmp_path / "x.zip", FILES, 5 << 30)
    assert contents(tmp_path / "x.zip") == FILES


@pytest.mark.parametrize("size", [0, 79, 81])
def test_another_size_than_stated(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.zip"
    data = plain({"x": b"ab" * 40}, zipfile.ZIP_DEFLATED)
    at = data.index(b"PK\1\2") + 24
    path.write_bytes(data[:at] + size.to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(ZipError, match="its size is not the stated one"):
        contents(path)


def test_damaged_and_shortened_data(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    whole = plain({"x": bytes(range(256)) * 4}, zipfile.ZIP_DEFLATED)
    path.write_bytes(whole[:40] + b"\xff" * 20 + whole[60:])
    with pytest.raises(ZipError, match="invalid"):
        contents(path)
    at = whole.index(b"PK\1\2") + 20
    path.write_bytes(whole[:at] + b"\x10\0\0\0" + whole[at + 4 :])
    with pytest.raises(ZipError, match=r"cut off|not the stated one"):
        contents(path)
