"""Detection data as YOLO has it: a .yaml, and a text file of boxes beside each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eightfold.calib.images.annotations import read_yolo
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.images import yolo_files
from eightfold.errors import ImageError
from eightfold.json_types import JsonMapping
from eightfold.tasks.boxed_images import BoxedImages, Objects, class_index

IMAGES = ("images", "JPEGImages")


def from_yolo(path: Path, parts: Sequence[str], labels: Sequence[str]) -> BoxedImages:
    """The images of the first of `parts` that the yaml at `path` has. Raises ImageError."""
    entries = read_yolo(path)
    names = _names(path, entries)
    classes = tuple(labels) or names
    files = yolo_files(path, entries, parts)
    objects = tuple(yolo_objects(file, names, classes) for file in files)
    return BoxedImages(files, None, classes, objects)


def _names(path: Path, entries: JsonMapping) -> tuple[str, ...]:
    names = entries.get("names")
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not names:
        raise ImageError(f"{path} does not name its classes", allowed="an entry 'names'")
    return tuple(map(str, names))


def yolo_objects(image: Path, names: Sequence[str], classes: Sequence[str]) -> Objects:
    """Those of `images/.../NAME.jpg` are in `labels/.../NAME.txt`: per line a class, then centre and size or a polygon,
    in shares of the image's width and height. An image without that file shows nothing. `JPEGImages`, as VOC has it,
    counts as `images`."""
    folder = next((name for name in IMAGES if f"/{name}/" in str(image)), IMAGES[0])
    path = Path("/labels/".join(str(image).rsplit(f"/{folder}/", 1))).with_suffix(".txt")
    if not path.is_file():
        return Objects.of([])
    height, width = read_image(image).shape[:2]
    rows = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        try:
            index, *values = map(float, line.split())
            shares = _corners(np.array(values).reshape(-1, 2))
            name = names[int(index)]
        except (ValueError, IndexError):
            raise ImageError(
                f"{path}: {line.strip()[:60]!r}", allowed=f"lines 'class x y width height', class 0 to {len(names) - 1}"
            ) from None
        rows.append(((shares * (width, height)).ravel().tolist(), class_index(name, classes, path), False))
    return Objects.of(rows)


def _corners(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 2) of a centre and a size, or (n, 2) of a polygon -> (2, 2) of opposite corners."""
    if len(pairs) == 2:
        return np.stack([pairs[0] - pairs[1] / 2, pairs[0] + pairs[1] / 2])
    return np.stack([pairs.min(axis=0), pairs.max(axis=0)])
