"""Opens image sets: folders, globs, list files, COCO json, YOLO data sets, sequences of paths or arrays."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.annotations import (
    coco_files,
    data_files,
    read_coco,
    read_data,
    read_list,
    read_yolo,
    yolo_places,
)
from eightfold.calib.images.decode import SUFFIXES, image_files, images_in
from eightfold.calib.images.image_set import ImageSet
from eightfold.errors import ImageError
from eightfold.files import PathLike
from eightfold.json_types import JsonMapping

# A folder, file, glob pattern or data set file; a sequence of paths or of arrays; an array of images; an open set.
ImageSource: TypeAlias = ImageSet | PathLike | Iterable[PathLike | Array]


def open_images(source: ImageSource, *, labels: Sequence[int] | None = None) -> ImageSet:
    """The images of a source.

    Args:
        source: an ImageSet; a folder (sub-folders that hold images are classes, as torchvision's ImageFolder has it);
            a glob pattern; a text file with one path per line, relative to the file, and optionally a label after a
            tab; a COCO .json, YOLO .yaml or Darknet .data; a list of paths or of (H, W, C) arrays; an array
            (N, H, W, C) or (N, H, W) of uint8 or uint16.
        labels: class index of each image, for lists and arrays.

    Raises:
        ImageError: there is no such source, or it holds no images.
    """
    if isinstance(source, ImageSet):
        return source
    images = _open_path(source) if isinstance(source, str | Path) else _open_sequence(source)
    if not images.items:
        raise ImageError(f"no images in {_shown(source)}", allowed=f"files ending in {', '.join(sorted(SUFFIXES))}")
    if labels is None:
        return images
    if len(labels) != len(images):
        raise ImageError(f"{len(labels)} labels for {len(images)} images", allowed="one label per image")
    return replace(images, labels=tuple(int(label) for label in labels))


def _shown(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else f"this {type(source).__name__}"


def _open_path(source: PathLike) -> ImageSet:
    path = Path(source)
    if path.is_dir():
        return _open_folder(path)
    if path.is_file():
        return _open_file(path)
    if any(mark in str(source) for mark in "*?["):
        return ImageSet(tuple(image_files(map(Path, _glob(source)))))
    raise ImageError(f"{path} does not exist", allowed="a folder, a list file, a glob pattern", remedy="check the path")


def _glob(pattern: PathLike) -> list[str]:
    return sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns


def _open_file(path: Path) -> ImageSet:
    if path.suffix == ".json":
        return ImageSet(coco_files(path, read_coco(path)))
    if path.suffix in (".yaml", ".yml"):
        return ImageSet(yolo_files(path, read_yolo(path), ("val", "train")))
    if path.suffix == ".data":
        return ImageSet(data_files(path, read_data(path), ("valid", "train")))
    if _is_image(path):
        return ImageSet((path,))
    return _open_list(path)


def _open_list(path: Path) -> ImageSet:
    items, labels = read_list(path)
    return ImageSet(items, labels)


def _is_image(path: PathLike) -> bool:
    return Path(path).suffix.lower() in SUFFIXES


def _open_folder(folder: Path) -> ImageSet:
    files = images_in(folder)
    classes = sorted({path.relative_to(folder).parts[0] for path in files if path.parent != folder})
    if not classes or any(path.parent == folder for path in files):
        return ImageSet(tuple(files))
    labels = tuple(classes.index(path.relative_to(folder).parts[0]) for path in files)
    return ImageSet(tuple(files), labels, tuple(classes))


def _open_sequence(source: Any) -> ImageSet:
    if isinstance(source, np.ndarray) and source.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"an array of type {source.dtype}",
            allowed="(N, height, width, channels) uint8 or uint16",
            remedy="pass tensors that are ready for the model with preprocess=None",
        )
    return ImageSet(tuple(Path(item) if isinstance(item, str | Path) else np.asarray(item) for item in source))


def yolo_files(path: Path, entries: JsonMapping, parts: Sequence[str]) -> tuple[Path, ...]:
    """The images of the first of these parts that the YOLO yaml at `path` has. Raises ImageError where it has none."""
    return tuple(file for place in yolo_places(path, entries, parts) for file in _files_of(place))


def _files_of(place: Path) -> list[Path]:
    if place.is_dir():
        return images_in(place)
    return [item for item in open_images(place).items if isinstance(item, Path)]
