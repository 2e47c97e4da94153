"""Data sets of Darknet and of Pascal VOC hold the same objects as the COCO file of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from eightfold.calib.images.images import open_images
from eightfold.errors import ImageError
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.boxes import open_part

WIDTH, HEIGHT = 40, 20
XML = (
    """<annotation><filename>{file}</filename><size><width>40</width><height>20</height></size>{objects}</annotation>"""
)
OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"  # noqa: E501


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def rows(images: BoxedImages) -> list[list[tuple[str, list[float], bool]]]:
    return [
        [
            (images.classes[index], box, crowd)
            for index, box, crowd in zip(each.classes, each.boxes.tolist(), each.crowd.tolist(), strict=True)
        ]
        for each in images.objects
    ]


def darknet(folder: Path, **changed: str) -> Path:
    """Two images, one with two objects; the lists hold paths relative to the .data file."""
    for name in ("a", "b"):
        image(folder / f"VOC/JPEGImages/{name}.png")
    (folder / "VOC/labels").mkdir()
    (folder / "VOC/labels/a.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.25 0.25 0.5 0.5\n")
    (folder / "train.txt").write_text("VOC/JPEGImages/a.png\n\n")
    (folder / "valid.list").write_text("VOC/JPEGImages/b.png\nVOC/JPEGImages/a.png\n")
    (folder / "two.names").write_text("cup\nplate\n\n")
    entries = {"classes": "2", "train": "train.txt", "valid": "valid.list", "names": "two.names", **changed}
    lines = [f" {key} = {value} " for key, value in entries.items() if value]
    (folder / "two.data").write_text("# a comment\n" + "\n".join(lines) + "\n")
    return folder / "two.data"


def voc(folder: Path, xml: str | None = None) -> Path:
    for name in ("a", "b"):
        image(folder / f"JPEGImages/{name}.jpg")
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "ImageSets/Main/trainval.txt").write_text("a\n")
    (folder / "ImageSets/Main/test.txt").write_text("b  1\n")
    first = OBJECT.format("plate", 0, 16, 6, 25, 15) + OBJECT.format("cup", 1, 1, 1, 20, 10)
    (folder / "Annotations/a.xml").write_text(xml or XML.format(file="a.jpg", objects=first))
    (folder / "Annotations/b.xml").write_text(XML.format(file="", objects=OBJECT.format("bowl", 0, 1, 1, 40, 20)))
    return folder


# The plate is 10 pixels wide and high, from the 16th column and 6th row, counted from 1.
PLATE, CUP = [15.0, 5.0, 25.0, 15.0], [0.0, 0.0, 20.0, 10.0]


def test_darknet_data(tmp_path: Path) -> None:
    path = darknet(tmp_path)
    assert rows(open_part(path, "train", None, ())) == [[("plate", PLATE, False), ("cup", CUP, False)]]
    assert rows(open_part(path, "test", None, ())) == [[], [("plate", PLATE, False), ("cup", CUP, False)]]
    assert open_part(path, "train", None, ("plate", "bowl", "cup")).objects[0].classes.tolist() == [0, 2]
    assert [Path(str(item)).name for item in open_images(path).items] == ["b.png", "a.png"]


def test_darknet_paths_may_start_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = darknet(tmp_path)
    (tmp_path / "cfg").mkdir()
    moved = path.rename(tmp_path / "cfg/two.data")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.names").rename(tmp_path / "cfg/two.names")
    assert len(open_part(moved, "test", None, ())) == 2


def test_voc(tmp_path: Path) -> None:
    train, test = (
        open_part(voc(tmp_path) if part == "train" else tmp_path, part, None, ()) for part in ("train", "test")
    )
    assert train.classes == test.classes == ("bowl", "cup", "plate")
    assert rows(train) == [[("plate", PLATE, False), ("cup", CUP, True)]]
    assert rows(test) == [[("bowl", [0.0, 0.0, 40.0, 20.0], False)]]
    assert Path(str(test.items[0])) == tmp_path / "JPEGImages/b.jpg"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"names": ""}, "two.data does not name its classes; allowed: an entry names=FILE.names"),
        ({"names": "none.names"}, "two.data: cannot read .*none.names: No such file"),
        ({"classes": "3"}, r"two.data has classes=3, and .*two.names has 2 names; allowed: as many"),
        ({"train": ""}, "two.data names no images; allowed: an entry train = FILE"),
        ({"train": "none.txt"}, "two.data: cannot read .*none.txt: No such file"),
        ({"train": "two.names"}, "names an image that is not there: .*cup"),
        ({"extra": " "}, "two.data: .extra =.; allowed: lines key = value"),
    ],
)
def test_faulty_darknet_data_ends_in_one_line(changed: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=words):
        open_part(darknet(tmp_path, **changed), "train", None, ())


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<annotation>", r"a\.xml is not XML \(no element found"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", r"a\.xml declares a document type; allowed: plain XML"),
        ("<annotation><object><name>cup</name></object></annotation>", r"a\.xml: the box of 'cup' is incomplete"),
        ("<annotation/>", "the train images of .* have no boxes"),
    ],
)
def test_faulty_voc_ends_in_one_line(xml: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=words):
        open_part(voc(tmp_path, xml), "train", None, ("bowl", "cup"))


def test_voc_without_a_list_or_an_annotation(tmp_path: Path) -> None:
    folder = voc(tmp_path)
    (folder / "Annotations/b.xml").unlink()
    with pytest.raises(ImageError, match=r"cannot read .*b\.xml: No such file"):
        open_part(folder, "test", None, ("cup", "plate"))
    (folder / "ImageSets/Main/test.txt").unlink()
    with pytest.raises(ImageError, match=r"Main has no test images; allowed: test\.txt or val\.txt"):
        open_part(folder, "test", None, ())
