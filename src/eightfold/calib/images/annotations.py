"""Reads the files that name images: list files, COCO json, YOLO and Darknet data sets.

Boxes and classes belong to the tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from eightfold.errors import ImageError, why_unread
from eightfold.extras import require
from eightfold.json_types import JsonDict, JsonMapping


def read_list(path: Path) -> tuple[tuple[Path, ...], tuple[int, ...] | None]:
    """The images that a list file names, and their labels, which every line has or none.

    One image per line, relative to the file; a class index may follow after a tab. '#' starts a comment.
    """
    try:
        lines = [
            line
            for line in path.read_text(encoding="utf-8-sig").splitlines()
            if line.strip() and not line.startswith("#")
        ]
    except UnicodeDecodeError:
        raise ImageError(
            f"{path} is neither an image nor a text file", allowed="an image, a list file, a COCO .json, a YOLO .yaml"
        ) from None
    names, marks = zip(*(_name_and_label(line) for line in lines), strict=True) if lines else ((), ())
    for name, mark in zip(names, marks, strict=True):
        if mark and not mark.isdecimal():
            raise ImageError(
                f"{path} gives {name} the label {mark!r}",
                allowed="the number of a class, from 0 on, behind the tab",
                remedy="number the classes in the order of the network's outputs",
            )
    if any(marks) and not all(marks):
        raise ImageError(
            f"{path} gives {sum(map(bool, marks))} of {len(marks)} images a label, and {names[marks.index('')]} none",
            allowed="a label behind a tab for every image, or for none",
        )
    items = tuple(path.parent / name for name in names)
    return items, tuple(map(int, marks)) if any(marks) else None


def _name_and_label(line: str) -> tuple[str, str]:
    name, _, label = line.strip().partition("\t")
    return name.strip(), label.strip()


def read_coco(path: Path) -> JsonDict:
    """Content of a COCO annotation file. Raises ImageError."""
    try:
        content: JsonDict = json.loads(path.read_text(encoding="utf-8-sig"))
        names = [image["file_name"] for image in content["images"]]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ImageError(
            f"{path} is not COCO json ({type(error).__name__}: {error})", allowed="a list 'images' with 'file_name's"
        ) from None
    if not all(isinstance(name, str) for name in names):
        raise ImageError(f"{path} is not COCO json (a file_name is no text)", allowed="names of image files")
    return content


def coco_files(path: Path, content: JsonMapping) -> tuple[Path, ...]:
    """The images that the file at `path` lists, looked for beside it, in `images/`, and in the folder of its own name
    (`annotations/instances_val2017.json` -> `val2017/`)."""
    names = [image["file_name"] for image in content["images"]]
    root = path.parent
    split = path.stem.rpartition("_")[2]
    folders = [base / name for base in (root, root.parent) for name in ("", "images", split, f"images/{split}")]
    home = next((folder for folder in folders if names and (folder / names[0]).is_file()), root)
    return tuple(home / name for name in names)


def yolo_places(path: Path, entries: JsonMapping, parts: Sequence[str]) -> list[Path]:
    """Folders and list files of the first of these parts that the yaml at `path` has. Raises ImageError without any."""
    base = path.parent / str(entries.get("path", ""))
    places = next((entries[part] for part in parts if entries.get(part)), None)
    if places is None:
        raise ImageError(f"{path} names no images", allowed=f"an entry {' or '.join(map(repr, parts))}")
    return [base / str(place) for place in (places if isinstance(places, list) else [places])]


def read_yolo(path: Path) -> JsonDict:
    """Entries of a YOLO data set's yaml. Raises ImageError."""
    yaml = require("yaml", "read YOLO data sets")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ImageError(f"{path} is not YAML ({error})", allowed="a YOLO data set") from None
    return entries if isinstance(entries, dict) else {}


def read_data(path: Path) -> dict[str, str]:
    """The `key = value` lines of a .data file of Darknet. Raises ImageError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"cannot read {path}: {why_unread(error)}", allowed="a .data file of Darknet") from None
    pairs = [line.partition("=") for line in lines if line.strip() and line.strip()[0] not in "#;"]
    for key, equals, value in pairs:
        if not equals or not key.strip() or not value.strip():
            raise ImageError(f"{path}: {(key + equals + value).strip()!r}", allowed="lines key = value")
    return {key.strip(): value.strip() for key, _, value in pairs}


def data_files(path: Path, entries: Mapping[str, str], parts: Sequence[str]) -> tuple[Path, ...]:
    """The images of the first of these lists that a .data file names: one path a line, as Darknet reads them.

    Relative paths start at the .data file's folder, or, as in Darknet, where the command runs. Raises ImageError.
    """
    name = next((entries[part] for part in parts if part in entries), None)
    if name is None:
        raise ImageError(f"{path} names no images", allowed=f"an entry {' or '.join(parts)} = FILE")
    place = _beside(path, name)
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: cannot read {place}: {why_unread(error)}", allowed="an image on each line") from None
    return tuple(_beside(path, line.strip()) for line in lines if line.strip())


def _beside(path: Path, name: str) -> Path:
    there = path.parent / name
    return there if there.exists() or not Path(name).exists() else Path(name)
