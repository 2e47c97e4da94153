"""Detection data as Darknet has it: a .data file that names lists of images and a file of class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eightfold.calib.images.annotations import data_files, read_data
from eightfold.errors import ImageError, why_unread
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.yolo_data import yolo_objects

LISTS: Mapping[str, tuple[str, ...]] = {"train": ("train",), "test": ("valid", "test")}


def from_data(path: Path, part: str, labels: Sequence[str] = ()) -> BoxedImages:
    """One part ("train" or "test") of a .data file: `classes`, `train`, `valid` and `names`.

    Objects are in a text file beside each image, as in YOLO data sets. Raises ImageError.
    """
    entries = read_data(path)
    names = read_names(path, entries)
    files = data_files(path, entries, LISTS[part])
    objects = tuple(yolo_objects(file, names, tuple(labels) or names) for file in files)
    return BoxedImages(files, None, tuple(labels) or names, objects)


def read_names(path: Path, entries: Mapping[str, str]) -> tuple[str, ...]:
    """The class names of a .data file, one a line of the file that its `names` names. Raises ImageError."""
    if "names" not in entries:
        raise ImageError(f"{path} does not name its classes", allowed="an entry names=FILE.names")
    file = path.parent / entries["names"]
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: cannot read {file}: {why_unread(error)}", allowed="a name on each line") from None
    stated = entries.get("classes", str(len(names)))
    if stated != str(len(names)) or not names:
        raise ImageError(f"{path} has classes={stated}, and {file} has {len(names)} names", allowed="as many")
    return names
