"""The parts of a labelled data set, train and test, and what is said where a folder has none."""

from __future__ import annotations

from pathlib import Path

from eightfold.calib.images.decode import SUFFIXES
from eightfold.errors import ImageError
from eightfold.tasks.boxes import FOLDERS
from eightfold.tasks.voc_data import is_voc

FORMS = (
    "to classify, a folder with train/LABEL/* and test/LABEL/*; to detect, one with images and a COCO .json in train/ "
    "and in test/, a YOLO .yaml or a Darknet .data"
)
FILES = (".yaml", ".yml", ".data")


def test_folder(data: Path) -> Path:
    """The folder of the test images: `test`, or `valid` or `val` where that is there instead."""
    return next((data / name for name in FOLDERS["test"] if (data / name).is_dir()), data / "test")


def require_parts(data: Path) -> None:
    """Refuse what is no labelled data set in two parts, with the form that is wanted.

    Raises:
        ImageError: it is not there, a file of another kind, or a folder without both parts.
    """
    if not data.exists():
        raise ImageError(f"no images at {data}", allowed=FORMS, remedy="check the path")
    if data.is_file():
        if data.suffix not in FILES:
            raise ImageError(f"{data} is a file", allowed=FORMS)
        return
    if is_voc(data) or not (lacks := [part for part, names in FOLDERS.items() if not _has(data, names)]):
        return
    raise ImageError(f"{data} has no folder {' and no folder '.join(lacks)}", allowed=FORMS, remedy=_remedy(data))


def _has(data: Path, names: tuple[str, ...]) -> bool:
    return any((data / name).is_dir() for name in names)


def _remedy(data: Path) -> str:
    above = data.absolute().parent
    if all(_has(above, names) for names in FOLDERS.values()):
        return f"did you mean {data.parent}?"
    entries = sorted(data.iterdir())
    if any(entry.suffix.lower() in SUFFIXES for entry in entries):
        return "sort the images into a folder for each label; without labels: eightfold recover, or eightfold compress"
    if any(entry.is_dir() for entry in entries):
        return "divide the images of each label between train/LABEL and test/LABEL"
    return "check the path"
