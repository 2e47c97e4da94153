"""Images with boxes around what is in them: read as COCO, YOLO, Darknet or VOC have them, kept as COCO has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eightfold.calib.images.annotations import coco_files, read_coco
from eightfold.errors import ImageError
from eightfold.files import write_text
from eightfold.json_types import JsonDict
from eightfold.tasks.boxed_images import BoxedImages, Objects, class_index
from eightfold.tasks.darknet_data import from_data
from eightfold.tasks.voc_data import from_voc, is_voc
from eightfold.tasks.yolo_data import from_yolo

FILE = "annotations.json"
# Where a folder or a YOLO data set may keep each part; the first that is there counts.
FOLDERS = {"train": ("train",), "test": ("test", "valid", "val")}
YOLO_PARTS = {"train": ("train",), "test": ("val", "test")}


def open_part(source: Path, part: str, file: str | None, labels: Sequence[str]) -> BoxedImages:
    """One part of a data set.

    Args:
        source: a folder with COCO annotations, one as Pascal VOC has it, the .yaml of a YOLO data set, or a .data file
            of Darknet.
        part: "train" or "test".
        file: the COCO annotation file in that folder; by default the only .json in its folder `train` or `test`.
        labels: the network's classes, in order; by default those of the data set.

    Raises:
        ImageError: there is none, or it cannot be read.
    """
    if source.suffix in (".yaml", ".yml"):
        found = from_yolo(source, YOLO_PARTS[part], labels)
    elif source.suffix == ".data":
        found = from_data(source, part, labels)
    elif is_voc(source):
        found = from_voc(source, part, labels)
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
            row = (x, y, x + width, y + height), class_index(name, classes, path), bool(each.get("iscrowd", 0))
            rows[places[int(each["image_id"])]].append(row)
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{path} is not COCO json of objects ({type(error).__name__}: {error})",
            allowed="images with an id; categories with id and name; annotations with image_id, category_id and bbox",
        ) from None
    return BoxedImages(coco_files(path, content), None, classes, tuple(map(Objects.of, rows)))


def write_part(images: BoxedImages, folder: Path) -> None:
    """Copy the images into `folder` and describe them in its `annotations.json`, for `from_coco` to read."""
    (folder / "images").mkdir(parents=True)
    names = [f"{place:06d}-{Path(str(item)).name}" for place, item in enumerate(images.items)]
    for item, name in zip(images.items, names, strict=True):
        shutil.copyfile(str(item), folder / "images" / name)
    write_text(folder / FILE, json.dumps(coco_content(images, names), indent=1) + "\n")


def coco_content(images: BoxedImages, names: Sequence[str]) -> JsonDict:
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
