"""A process that is killed while it writes a bundle: what was there before is there still, whole."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import write_bundle, zip_bundle
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sign import new_key, sign_bundle


def _write(path: Path, name: str) -> Path:
    note = path.parent / "note.txt"
    note.write_bytes(name.encode())
    task, how = Task(kind="tensors", decode="none"), Preprocess(height=1, width=1)
    return write_bundle(path, name=name, task=task, preprocess=how, artifacts=[], files={"note.txt": note})


WRITERS: dict[str, Callable[[Path, str], Path]] = {
    "directory": lambda folder, name: _write(folder / "bundle", name),
    "zip": lambda folder, name: _write(folder / "bundle.eightfold", name),
    "packed": lambda folder, name: zip_bundle(folder / "source", folder / "bundle.eightfold"),
    "signature": lambda folder, name: sign_bundle(folder / "bundle", folder / "key"),
}


def _killed(python: str, what: str, folder: Path, place: str) -> None:
    done = subprocess.run([python, __file__, what, folder, place], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("directory", "shutil:copyfile"),
        ("directory", "pathlib:Path.write_text"),
        ("directory", "eightfold.export.bundle.write:sync_files"),
        ("directory", "shutil:rmtree"),
        ("zip", "zipfile:ZipFile.open"),
        ("zip", "zipfile:ZipFile.close"),
        ("zip", "pathlib:Path.replace"),
        ("packed", "shutil:copyfileobj"),
    ],
)
def test_a_kill_leaves_a_whole_bundle(tmp_path: Path, warm_python: str, what: str, place: str) -> None:
    _write(tmp_path / "source", "new")
    kept = WRITERS["zip" if what == "packed" else what](tmp_path, "old")
    _killed(warm_python, what, tmp_path, place)
    bundle = Bundle.open(kept)
    bundle.verify()
    # the old one is removed after the new one has its place
    assert bundle.manifest.name == ("new" if place == "shutil:rmtree" else "old")


@pytest.mark.parametrize("place", ["pathlib:Path.replace", "eightfold.files:_sync"])
def test_a_kill_leaves_the_old_signature(tmp_path: Path, warm_python: str, place: str) -> None:
    bundle, public = WRITERS["directory"](tmp_path, "old"), new_key(tmp_path / "key")
    sign_bundle(bundle, tmp_path / "key")
    _killed(warm_python, "signature", tmp_path, place)
    Bundle.open(bundle, key=public)


def _write_and_die(what: str, folder: str, place: str) -> None:
    """Write with the function at `place` (module:name) killing this process where it would be called."""
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *within, last = name.split(".")
    for part in within:
        owner = getattr(owner, part)
    setattr(owner, last, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    WRITERS[what](Path(folder), "new")


if __name__ == "__main__":
    _write_and_die(*sys.argv[1:])
