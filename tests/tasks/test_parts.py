"""A folder that is no labelled data set in two parts is refused with the form that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.errors import ImageError
from eightfold.tasks.parts import require_parts
from eightfold.tasks.parts import test_folder as folder_of_tests

FOLDERS: dict[str, tuple[list[str], str, str]] = {
    "flat": (
        ["a.png", "b.JPG"],
        "",
        r"has no folder train and no folder test; .*; sort the images .* recover",
    ),
    "labels": (["cat/a.png", "dog/b.png"], "", r"has no folder train and .*; divide the images of each label between"),
    "train only": (["train/cat/a.png"], "", r"has no folder test; .*; divide the images"),
    "the part": (["train/cat/a.png", "val/cat/b.png"], "train", r"train has no folder .*; did you mean .*data\?"),
    "empty": ([], "", r"has no folder train and no folder test; allowed: to classify, a folder with train/LABEL/\*"),
    "image": (["a.png"], "a.png", r"a\.png is a file; allowed: to classify"),
    "nothing": ([], "absent", r"no images at .*absent; .*; check the path"),
}


@pytest.mark.parametrize(("files", "named", "words"), FOLDERS.values(), ids=FOLDERS)
def test_what_is_missing_and_what_to_do(tmp_path: Path, files: list[str], named: str, words: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in files:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    with pytest.raises(ImageError, match=words):
        require_parts(data / named)


@pytest.mark.parametrize("test", ["test", "valid", "val"])
def test_both_parts(tmp_path: Path, test: str) -> None:
    for name in ("train", test):
        (tmp_path / name / "cat").mkdir(parents=True)
    require_parts(tmp_path)
    assert folder_of_tests(tmp_path) == tmp_path / test


def test_a_data_set_described_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").touch()
    require_parts(tmp_path / "data.yaml")
