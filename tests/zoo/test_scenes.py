"""Generated scenes: seeded, boxes fit what is drawn, and both forms are read back by the project's own readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eightfold.errors import UsageError
from eightfold.zoo.datasets import scenes
from eightfold.zoo.datasets.scenes import SHAPES, SceneOptions, scene, write_scenes

SMALL = SceneOptions(classes=12, size=64, seed=5)


def test_a_scene_is_the_same_again_and_another_number_is_another() -> None:
    first, again, other = scene(3, SMALL), scene(3, SMALL), scene(4, SMALL)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_is_one_part_within_its_radius(name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    y, x = np.mgrid[-1.5:1.5:151j, -1.5:1.5:151j]
    mask = scenes._inside(name, x, y)
    parts, _ = cv2.connectedComponents(mask.astype(np.uint8))
    assert parts == 2  # the background and the shape
    assert 0.05 < mask.mean() < 0.5
    assert np.hypot(x, y)[mask].max() < 1.35


def test_boxes_lie_in_the_image_and_labels_among_the_classes() -> None:
    for number in range(20):
        found = scene(number, SceneOptions(classes=3, size=64))
        assert found.image.shape == (64, 64, 3)
        assert found.image.dtype == np.uint8
        assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= 64).all()
        assert set(found.labels.tolist()) <= {0, 1, 2}


def test_a_hidden_shape_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    full = np.ones((64, 64), np.bool_)
    monkeypatch.setattr(scenes, "_shape", lambda name, rng, size: full)
    crowded = scene(0, SceneOptions(size=64, most=6))
    assert len(crowded.boxes) == 1
    np.testing.assert_array_equal(crowded.boxes[0], [0, 0, 64, 64])


def test_coco_and_yolo_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    write_scenes(tmp_path / "coco", train=3, test=2, form="coco", options=SMALL)
    write_scenes(tmp_path / "yolo", train=3, test=2, form="yolo", options=SMALL)
    data = json.loads((tmp_path / "coco" / "test" / "annotations.json").read_text())
    assert [image["id"] for image in data["images"]] == [3, 4]
    texts = [(tmp_path / f"yolo/test/labels/{number:06d}.txt").read_text() for number in (3, 4)]
    rows = [line for text in texts for line in text.splitlines()]
    lines = [list(map(float, row.split())) for row in rows if row]
    assert len(lines) == len(data["annotations"]) > 0
    for (label, x, y, width, height), annotation in zip(lines, data["annotations"], strict=True):
        assert annotation["category_id"] == label + 1
        expected = [64 * (x - width / 2), 64 * (y - height / 2), 64 * width, 64 * height]
        np.testing.assert_allclose(annotation["bbox"], expected, atol=1e-3)


def test_too_many_classes() -> None:
    with pytest.raises(UsageError, match="13 classes of scenes; allowed: 1 to 12"):
        scene(0, SceneOptions(classes=13))
