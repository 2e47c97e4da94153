"""Writes happen whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.errors import ModelError, UsageError
from eightfold.files import (
    atomic_directory,
    atomic_path,
    remove_temporaries,
    require_model_file,
    sha256_of_file,
    write_text,
)


def test_sha256_of_the_standard_example(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def fail_after_writing(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError("midway")


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="midway"), atomic_path(path) as temporary:
        fail_after_writing(temporary)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        temporary.write_text("x")


def test_parents_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_all_files_of_a_folder_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    """Libraries differ: safetensors writes files that only their owner may read."""
    before = os.umask(0o027)
    try:
        with atomic_directory(tmp_path / "folder") as temporary:
            for place, mode in (("a", 0o600), ("b/c", 0o644), ("b/run", 0o700)):
                write_text(temporary / place, "x")
                (temporary / place).chmod(mode)
            (temporary / "b").chmod(0o700)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        "folder": 0o750,
        "folder/a": 0o640,
        "folder/b": 0o750,
        "folder/b/c": 0o640,
        "folder/b/run": 0o740,
    }


def test_a_directory_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*: it is a directory; allowed: the name of a file"):
        write_text(tmp_path, "x")


def test_a_device_or_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="it is a device or pipe"):
        write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()


def test_a_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with atomic_directory(target) as temporary:
        (temporary / "old").touch()
    with atomic_directory(target) as temporary:
        (temporary / "new").touch()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_failed_directory_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with atomic_directory(target) as temporary:
        (temporary / "old").touch()
    with pytest.raises(RuntimeError, match="midway"), atomic_directory(target) as temporary:
        fail_after_writing(temporary / "new")
    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_directory_of_other_origin_is_not_replaced(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").touch()
    allowed = "a new name, an empty directory, or one with manifest.json to replace"
    with (
        pytest.raises(UsageError, match=f"photos holds other things, such as cat.jpg; allowed: {allowed}"),
        atomic_directory(photos, replaces=("manifest.json",)),
    ):
        pass
    assert [path.name for path in photos.iterdir()] == ["cat.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("inside", [[], ["manifest.json", "more"]])
def test_an_empty_directory_or_a_known_one_is_replaced(tmp_path: Path, inside: list[str]) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    for name in inside:
        (target / name).touch()
    with atomic_directory(target, replaces=("manifest.json",)) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]


def test_a_file_is_not_replaced_by_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("precious")
    with (
        pytest.raises(UsageError, match=r"model.onnx: a file has that name"),
        atomic_directory(tmp_path / "model.onnx"),
    ):
        pass
    assert (tmp_path / "model.onnx").read_text() == "precious"


KILLED = """
import os, signal, sys
from pathlib import Path
from eightfold.files import atomic_directory, atomic_path

with atomic_path(Path(sys.argv[1]) / "graphs" / "a b.onnx") as outer, atomic_path(outer):
    with atomic_directory(Path(sys.argv[1]) / "bundle") as folder:
        (folder / "manifest.json").write_text("{}")
        with atomic_path(folder / "noext"):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_begun_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("graphs/.a b.onnx", "graphs/a-12345678.tmp", ".notes.tmp", ".lock")]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*.tmp*"))) == 6  # four of them ours
    remove_temporaries(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
    assert {path.name for path in tmp_path.iterdir()} == {"graphs", ".notes.tmp", ".lock"}


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".a-12345678.tmp").symlink_to(tmp_path / "photos")
    remove_temporaries(tmp_path / "run")
    assert (tmp_path / "photos").is_dir()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_in_place_of_a_model_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(ModelError, match=r"net\.onnx is a folder, and no ONNX file; allowed: x; name the file in it"):
        require_model_file(tmp_path / "net.onnx", "ONNX file", allowed="x")
    with pytest.raises(ModelError, match=r"no ONNX file .*absent\.onnx; allowed: x; check the path"):
        require_model_file(tmp_path / "absent.onnx", "ONNX file", allowed="x")
