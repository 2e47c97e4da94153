"""Images with boxes around what is in them, read as COCO and YOLO data sets have them, and kept as COCO has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from eightfold.calib.images.annotations import coco_files, read_coco, read_yolo
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import yolo_files
from eightfold.errors import ImageError
from eightfold.files import sha256_of_bytes, write_text

FILE = "annotations.json"
# Where a folder or a YOLO data set may keep each part; the first that is there counts.
FOLDERS = {"train": ("train",), "test": ("test", "valid", "val")}
YOLO_PARTS = {"train": ("train",), "test": ("val", "test")}


@dataclass(frozen=True, eq=False)
class Objects:
    """What is annotated in one image.

    Attributes:
        boxes: (n, 4) float64, x1, y1, x2, y2 in pixels of the image.
        classes: (n,) int64.
        crowd: (n,) bool; a box around many, in which any number may be found, or none.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @staticmethod
    def of(rows: Sequence[tuple[Sequence[float], int, bool]]) -> Objects:
        """From (box, class, whether it is a crowd) of each."""
        return Objects(
            np.array([box for box, _, _ in rows], np.float64).reshape(-1, 4),
            np.array([index for _, index, _ in rows], np.int64),
            np.array([crowd for _, _, crowd in rows], bool),
        )


@dataclass(frozen=True, eq=False)
class BoxedImages(ImageSet):
    """Images with the objects in each; `classes` are the names of theirs."""

    objects: tuple[Objects, ...] = ()

    def subset(self, indices: Sequence[int]) -> Self:
        return replace(super().subset(indices), objects=tuple(self.objects[index] for index in indices))

    def digest(self) -> str:
        """SHA-256 over the images' bytes, their order, and what is annotated; paths do not count."""
        lines = [super().digest(), *self.classes]
        lines += [part.tobytes().hex() for each in self.objects for part in (each.boxes, each.classes, each.crowd)]
        return sha256_of_bytes("\n".join(lines).encode())


def open_part(source: Path, part: str, file: str | None, labels: Sequence[str]) -> BoxedImages:
    """One part of a data set.

    Args:
        source: a folder, or the .yaml of a YOLO data set.
        part: "train" or "test".
        file: the COCO annotation file in that folder; by default the only .json in its folder `train` or `test`.
        labels: the network's classes, in order; by default those of the data set.

    Raises:
        ImageError: there is none, or it cannot be read.
    """
    if source.suffix in (".yaml", ".yml"):
        found = _from_yolo(source, YOLO_PARTS[part], labels)
    else:
        found = from_coco(source / file if file else _annotations_in(source, part), labels)
    for item in found.items:
        if not Path(str(item)).is_file():
            raise ImageError(f"{source} names an image that is not there: {item}", allowed="images that exist")
    if not any(len(each.classes) for each in found.objects):
        raise ImageError(f"the {part} images of {source} have no boxes", allowed="images with annotated objects")
    return found


def _annotations_in(source: Path, part: str) -> Path:
    folder = next((source / name for name in FOLDERS[part] if (source / name).is_dir()), source / part)
    files = sorted(folder.glob("*.json"))
    if len(files) != 1:
        raise ImageError(
            f"{folder} holds {len(files)} .json files",
            allowed="one: the COCO annotations of the images there",
            remedy=f"or name it in the recipe as data.{part}",
        )
    return files[0]


def from_coco(path: Path, labels: Sequence[str] = ()) -> BoxedImages:
    """The images of a COCO annotation file. Categories are classes in the order of their ids, or those of `labels` that
    have their names. Raises ImageError."""
    content = read_coco(path)
    try:
        names = {int(each["id"]): str(each["name"]) for each in content["categories"]}
        places = {int(image["id"]): place for place, image in enumerate(content["images"])}
        rows: list[list[Any]] = [[] for _ in places]
        classes = tuple(labels) or tuple(names[key] for key in sorted(names))
        for each in content["annotations"]:
            name, (x, y, width, height) = names[int(each["category_id"])], map(float, each["bbox"])
            row = (x, y, x + width, y + height), _class(name, classes, path), bool(each.get("iscrowd", 0))
            rows[places[int(each["image_id"])]].append(row)
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{path} is not COCO json of objects ({type(error).__name__}: {error})",
            allowed="images with an id; categories with id and name; annotations with image_id, category_id and bbox",
        ) from None
    return BoxedImages(coco_files(path, content), None, classes, tuple(map(Objects.of, rows)))


def _class(name: str, classes: Sequence[str], path: Path) -> int:
    if name not in classes:
        raise ImageError(
            f"{path} has objects of class {name!r}",
            allowed=", ".join(classes),
            remedy="name all classes of the network, in their order, as task.labels",
        )
    return classes.index(name)


def _from_yolo(path: Path, parts: Sequence[str], labels: Sequence[str]) -> BoxedImages:
    entries = read_yolo(path)
    names = _yolo_names(path, entries)
    classes = tuple(labels) or names
    files = yolo_files(path, entries, parts)
    objects = tuple(_yolo_objects(file, names, classes) for file in files)
    return BoxedImages(files, None, classes, objects)


def _yolo_names(path: Path, entries: Mapping[str, Any]) -> tuple[str, ...]:
    names = entries.get("names")
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not names:
        raise ImageError(f"{path} does not name its classes", allowed="an entry 'names'")
    return tuple(map(str, names))


def _yolo_objects(image: Path, names: Sequence[str], classes: Sequence[str]) -> Objects:
    """Those of `images/.../NAME.jpg` are in `labels/.../NAME.txt`: per line a class, then centre and size or a polygon,
    in shares of the image's width and height. An image without that file shows nothing."""
    path = Path("/labels/".join(str(image).rsplit("/images/", 1))).with_suffix(".txt")
    if not path.is_file():
        return Objects.of([])
    height, width = read_image(image).shape[:2]
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            index, *values = map(float, line.split())
            shares = _corners(np.array(values).reshape(-1, 2))
            name = names[int(index)]
        except (ValueError, IndexError):
            raise ImageError(
                f"{path}: {line.strip()[:60]!r}", allowed=f"lines 'class x y width height', class 0 to {len(names) - 1}"
            ) from None
        rows.append(((shares * (width, height)).ravel().tolist(), _class(name, classes, path), False))
    return Objects.of(rows)


def _corners(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 2) of a centre and a size, or (n, 2) of a polygon -> (2, 2) of opposite corners."""
    if len(pairs) == 2:
        return np.stack([pairs[0] - pairs[1] / 2, pairs[0] + pairs[1] / 2])
    return np.stack([pairs.min(axis=0), pairs.max(axis=0)])


def write_part(images: BoxedImages, folder: Path) -> None:
    """Copy the images into `folder` and describe them in its `annotations.json`, for `from_coco` to read."""
    (folder / "images").mkdir(parents=True)
    names = [f"{place:06d}-{Path(str(item)).name}" for place, item in enumerate(images.items)]
    for item, name in zip(images.items, names, strict=True):
        shutil.copyfile(str(item), folder / "images" / name)
    write_text(folder / FILE, json.dumps(coco_content(images, names), indent=1) + "\n")


def coco_content(images: BoxedImages, names: Sequence[str]) -> dict[str, Any]:
    """The data set as COCO has it; images and classes have their places as ids, annotations count from 1."""
    rows = [
        (place, index, (x1, y1, x2 - x1, y2 - y1), crowd)
        for place, each in enumerate(images.objects)
        for (x1, y1, x2, y2), index, crowd in zip(
            each.boxes.tolist(), each.classes.tolist(), each.crowd.tolist(), strict=True
        )
    ]
    return {
        "images": [{"id": place, "file_name": name} for place, name in enumerate(names)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(images.classes)],
        "annotations": [
            {
                "id": number,
                "image_id": place,
                "category_id": index,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": int(crowd),
            }
            for number, (place, index, box, crowd) in enumerate(rows, 1)
        ],
    }
