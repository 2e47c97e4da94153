"""Annotated boxes are read from COCO and YOLO data sets, and come back from what is written of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eightfold.calib.images.images import open_images
from eightfold.errors import ImageError
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.boxes import FILE, from_coco, open_part, write_part

WIDTH, HEIGHT = 40, 20
COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 3, "file_name": "b.png"}],
    "categories": [{"id": 9, "name": "plate"}, {"id": 2, "name": "cup"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 9, "bbox": [4, 2, 10, 6], "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 40, 20]},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [1.5, 2.5, 3, 4]},
    ],
}


def image(path: Path, brightness: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), brightness, np.uint8))


def coco(folder: Path, **changed: Any) -> Path:
    """A folder with two images and their annotations."""
    for place, name in enumerate(("a.png", "b.png")):
        image(folder / name, place)
    (folder / "boxes.json").write_text(json.dumps({**COCO, **changed}))
    return folder / "boxes.json"


def rows(images: BoxedImages) -> list[list[tuple[str, list[float], bool]]]:
    """What is in each image: the name of its class, its box, whether it is a crowd."""
    return [
        [
            (images.classes[index], box, crowd)
            for index, box, crowd in zip(each.classes, each.boxes.tolist(), each.crowd.tolist(), strict=True)
        ]
        for each in images.objects
    ]


EXPECTED = [[("cup", [0, 0, 40, 20], False)], [("plate", [4, 2, 14, 8], True), ("cup", [1.5, 2.5, 4.5, 6.5], False)]]


def test_coco_ids_may_be_any_numbers(tmp_path: Path) -> None:
    images = from_coco(coco(tmp_path))
    assert images.classes == ("cup", "plate")  # in the order of the ids
    assert [Path(str(item)).name for item in images.items] == ["a.png", "b.png"]
    assert rows(images) == EXPECTED


def test_labels_are_found_by_name(tmp_path: Path) -> None:
    images = from_coco(coco(tmp_path), ["background", "plate", "cup"])
    assert [each.classes.tolist() for each in images.objects] == [[2], [1, 2]]
    with pytest.raises(ImageError, match=r"objects of class 'plate'; allowed: cup; name all classes of the network"):
        from_coco(tmp_path / "boxes.json", ["cup"])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    images = from_coco(coco(tmp_path / "from"))
    write_part(images, tmp_path / "to")
    copy = from_coco(tmp_path / "to" / FILE)
    assert rows(copy) == EXPECTED
    assert copy.digest() == images.digest()


def test_a_changed_box_changes_the_digest(tmp_path: Path) -> None:
    first = from_coco(coco(tmp_path)).digest()
    moved = [*COCO["annotations"][:2], {**COCO["annotations"][2], "bbox": [1.5, 2.5, 3, 4.5]}]
    assert from_coco(coco(tmp_path, annotations=moved)).digest() != first


def test_a_sample_keeps_the_boxes_of_its_images(tmp_path: Path) -> None:
    images = from_coco(coco(tmp_path))
    assert rows(images.subset([1])) == EXPECTED[1:]
    (chosen,) = rows(images.sample(1, seed=0))
    assert chosen in EXPECTED


def test_parts_of_a_folder(tmp_path: Path) -> None:
    coco(tmp_path / "train")
    coco(tmp_path / "valid")
    for part in ("train", "test"):  # other names of the test images are known, too
        assert rows(open_part(tmp_path, part, None, ())) == EXPECTED


def test_parts_that_are_named(tmp_path: Path) -> None:
    coco(tmp_path / "val2017")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017" / "boxes.json").rename(tmp_path / "annotations" / "instances_val2017.json")
    assert rows(open_part(tmp_path, "test", "annotations/instances_val2017.json", ())) == EXPECTED


def yolo(folder: Path) -> Path:
    for part in ("train", "val"):
        for place, name in enumerate(("a", "b")):
            image(folder / "images" / part / f"{name}.png", place)
    labels = folder / "labels" / "val"
    labels.mkdir(parents=True)
    (labels / "b.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.1 0.5 0.5 0.2\n")
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: cup, 1: plate}\n")
    return folder / "data.yaml"


def test_yolo_boxes_and_polygons(tmp_path: Path) -> None:
    images = open_part(yolo(tmp_path), "test", None, ())
    plate, cup = rows(images)[1]
    assert rows(images)[0] == []
    assert plate == ("plate", [15, 5, 25, 15], False)
    assert cup[1] == pytest.approx([4, 2, 20, 10])
    assert len(open_images(tmp_path / "data.yaml")) == 2


def test_a_part_without_boxes(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"the train images of .* have no boxes; allowed: images with annotated objects"
    ):
        open_part(yolo(tmp_path), "train", None, ())


@pytest.mark.parametrize("line", ["2 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1", "cup 1 2 3 4", "0"])
def test_a_yolo_line_that_is_none(tmp_path: Path, line: str) -> None:
    source = yolo(tmp_path)
    (tmp_path / "labels" / "val" / "a.txt").write_text(line)
    with pytest.raises(ImageError, match="allowed: lines 'class x y width height', class 0 to 1"):
        open_part(source, "test", None, ())


@pytest.mark.parametrize(
    "changed",
    [
        {"annotations": [{"image_id": 4, "category_id": 2, "bbox": [0, 0, 1, 1]}]},
        {"annotations": [{"image_id": 3, "category_id": 5, "bbox": [0, 0, 1, 1]}]},
        {"annotations": [{"image_id": 3, "category_id": 2, "bbox": [0, 0, 1]}]},
        {"annotations": [{"image_id": 3, "category_id": 2}]},
        {"annotations": None},
        {"categories": [{"id": "cup"}]},
    ],
)
def test_annotations_that_are_none(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match=r"boxes\.json is not COCO json of objects"):
        from_coco(coco(tmp_path, **changed))


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    coco(tmp_path / "test")
    (tmp_path / "test" / "b.png").unlink()
    with pytest.raises(ImageError, match=r"names an image that is not there: .*b.png"):
        open_part(tmp_path, "test", None, ())


def test_a_folder_without_annotations(tmp_path: Path) -> None:
    image(tmp_path / "test" / "a.png")
    with pytest.raises(
        ImageError, match=r"test holds 0 .json files; allowed: one: .* name it in the recipe as data.test"
    ):
        open_part(tmp_path, "test", None, ())
