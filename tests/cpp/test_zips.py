"""Both runtimes read the zips that whole tools write, and refuse those that could be read in two ways."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import EightfoldError
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from tests.cpp.native import NativeEngine, NativeError
from tests.odd_zips import ODD, SOUND, Zip, write_behind_a_hole

TASK = Task(kind="classify", decode="classify")
PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def files(make_bundle: Callable[..., Path]) -> dict[str, bytes]:
    folder = make_bundle(Preprocess(height=32, width=32), TASK, {"logits": (3,)})
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def taken_by_python(path: Path) -> bool:
    try:
        return Bundle.open(path).verify() > 0
    except EightfoldError:
        return False


def taken_by_native(library: ctypes.CDLL, path: Path) -> bool:
    try:
        return len(NativeEngine(library, path, threads=1).run([PICTURE])) == 1
    except NativeError as error:
        return error.status not in ("bundle", "integrity")


@pytest.mark.parametrize("name", [*SOUND, *ODD])
def test_both_take_the_same(library: ctypes.CDLL, tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    made: Zip = (SOUND | ODD)[name]
    for order in (sorted(files), sorted(files, reverse=True)):
        path = tmp_path / "x.eightfold"
        path.write_bytes(made({inside: files[inside] for inside in order}))
        assert taken_by_python(path) == taken_by_native(library, path) == (name in SOUND)


def test_both_take_zips_of_more_than_four_gib(library: ctypes.CDLL, tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "x.eightfold"
    write_behind_a_hole(path, files, 5 << 30)
    assert taken_by_python(path)
    assert taken_by_native(library, path)
