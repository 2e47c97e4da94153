from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from eightfold.scratch import PREFIX, YOUNG_S, scratch_folder, scratch_folder_of

KILLED = """
import os, signal
from eightfold.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "weights").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def grow_old(folder: Path) -> None:
    then = folder.stat().st_mtime - 2 * YOUNG_S
    os.utime(folder, (then, then))


def test_it_goes_with_its_context_and_with_its_owner(place: Path) -> None:
    with scratch_folder() as folder:
        (folder / "inside").mkdir()
        (folder / "inside" / "file").write_bytes(b"x")
        assert [folder] == list(place.iterdir())
    owner = type("Owner", (), {})()
    kept = scratch_folder_of(owner)
    assert [kept] == list(place.iterdir())
    del owner
    gc.collect()
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_one(place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = place.iterdir()
    with scratch_folder():  # it may have been made just now, and not be locked yet
        assert left.is_dir()
    grow_old(left)
    with scratch_folder() as folder:
        assert list(place.iterdir()) == [folder]


def test_what_is_in_use_stays_however_old(place: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").write_bytes(b"x")
        grow_old(folder)
        with scratch_folder():
            assert (folder / "file").is_file()


def test_what_only_looks_like_one_stays(place: Path) -> None:
    others = place / "eightfold-main", place / f"{PREFIX}file", place / f"{PREFIX}link"
    others[0].mkdir()
    others[1].write_bytes(b"x")
    (place / "target").mkdir()
    others[2].symlink_to(place / "target")
    grow_old(others[0])
    grow_old(others[1])
    with scratch_folder():
        assert all(each.exists() for each in others)
