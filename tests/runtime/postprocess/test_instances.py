"""Masks, keypoints and turned boxes against ultralytics' own post-processing; pictures against plain resizing."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eightfold.arrays import Array
from eightfold.calib.images.geometry import Placement
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.instances import YoloKeypoints, YoloMasks
from eightfold.runtime.postprocess.object_results import InstanceMasks, Keypoints, OrientedBoxes
from eightfold.runtime.postprocess.oriented import YoloOriented, corners_of, oriented_nms, oriented_overlap
from eightfold.runtime.postprocess.picture_results import Depth, Picture
from eightfold.runtime.postprocess.pictures import DepthMap, PictureOut
from eightfold.runtime.predict.draw import draw

SIZE = (96, 128)
IDENTITY = Placement(SIZE, SIZE, (0, 0), SIZE)
CLASSES, COUNT = 5, 120


def head(further: Array, seed: int = 0) -> Array:
    """(1, 4 + classes + further, COUNT)."""
    random = np.random.default_rng(seed)
    rows = random.random((4 + CLASSES, COUNT)).astype(np.float32)
    rows[0] *= SIZE[1]
    rows[1] *= SIZE[0]
    rows[2:4] = 10 + 30 * rows[2:4]
    rows[4:] **= 8
    return np.concatenate((rows, further))[None].astype(np.float32)


def theirs(output: Array, **options: Any) -> Array:
    """Rows x, y, x, y, score, class, further values of ultralytics."""
    from ultralytics.utils.nms import non_max_suppression

    (found,) = non_max_suppression(torch.tensor(output), nc=CLASSES, **options)
    rows: Array = found.numpy()
    return rows


def test_masks_are_those_of_ultralytics() -> None:
    from ultralytics.utils.ops import process_mask_native

    random = np.random.default_rng(1)
    coefficients = random.normal(size=(8, COUNT)).astype(np.float32)
    prototypes = cv2.GaussianBlur(random.normal(size=(24, 32, 8)).astype(np.float32), (5, 5), 0).transpose(2, 0, 1)
    output = head(coefficients)
    (found,) = YoloMasks()({"rows": output, "prototypes": prototypes[None]}, [IDENTITY])
    assert isinstance(found, InstanceMasks)
    rows = theirs(output)
    rows[:, [0, 2]] = rows[:, [0, 2]].clip(0, SIZE[1])
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, SIZE[0])
    np.testing.assert_allclose(found.boxes, rows[:, :4], atol=1e-3)
    expected = process_mask_native(  # type: ignore[no-untyped-call]  # theirs has no types
        torch.tensor(prototypes), torch.tensor(rows[:, 6:]), torch.tensor(rows[:, :4]), SIZE
    ).numpy()
    seen = np.stack([found.mask(index, SIZE) for index in range(len(found))])
    assert 0.1 < seen[expected > 0].mean() <= 1
    assert (seen != (expected > 0)).mean() < 1e-4  # rounding at a logit of 0


def test_masks_of_a_letterboxed_image_lie_on_the_object() -> None:
    """A prototype that is positive in the left half of the tensor marks the left half of the image."""
    placement = Preprocess(height=64, width=64, resize="letterbox").place(30, 60)
    prototype = np.where(np.arange(16) < 8, 1, -1)[None, None, None].repeat(16, axis=2).astype(np.float32)
    row = np.array([32, 32, 60, 28, 0.9, 1.0], np.float32)[None, :, None]
    (found,) = YoloMasks()({"rows": row, "prototypes": prototype}, [placement])
    assert isinstance(found, InstanceMasks)
    mask = found.mask(0, (30, 60))
    columns = np.flatnonzero(mask.any(axis=0))
    assert (columns[0], columns[-1]) == (2, 29)
    runs = found.to_dict()["objects"][0]["mask"]
    assert sum(runs["runs"]) == np.prod(runs["size"])
    assert sum(runs["runs"][1::2]) == mask.sum()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_keypoints_are_those_of_ultralytics(dimensions: int) -> None:
    random = np.random.default_rng(2)
    points = random.random((4, dimensions, COUNT)).astype(np.float32)
    points[:, 0] *= SIZE[1]
    points[:, 1] *= SIZE[0]
    output = head(points.reshape(4 * dimensions, COUNT))
    (found,) = YoloKeypoints(keypoints=4, dimensions=dimensions)({"rows": output}, [IDENTITY])
    assert isinstance(found, Keypoints)
    expected = theirs(output)[:, 6:].reshape(-1, 4, dimensions)
    np.testing.assert_allclose(found.keypoints[..., :dimensions], expected, atol=1e-4)
    assert dimensions == 3 or (found.keypoints[..., 2] == 1).all()
    assert found.to_dict()["objects"][0]["keypoints"] == found.keypoints[0].tolist()


def turned(seed: int = 3) -> Array:
    random = np.random.default_rng(seed)
    return head(random.uniform(-np.pi / 4, 3 * np.pi / 4, (1, COUNT)).astype(np.float32), seed)


def test_the_overlap_of_turned_boxes_is_probiou() -> None:
    from ultralytics.utils.metrics import batch_probiou

    boxes = turned()[0][[0, 1, 2, 3, -1]].T
    expected = batch_probiou(torch.tensor(boxes), torch.tensor(boxes)).numpy()
    np.testing.assert_allclose(
        oriented_overlap(boxes.astype(np.float64), boxes.astype(np.float64)), expected, atol=2e-3
    )


def test_suppression_of_turned_boxes_is_greedy() -> None:
    boxes = turned()[0][[0, 1, 2, 3, -1]].T.astype(np.float64)
    overlaps, kept = oriented_overlap(boxes, boxes), list[int]()
    for index in range(len(boxes)):
        if not any(overlaps[index, other] > 0.3 for other in kept):
            kept.append(index)
    assert 1 < len(kept) < len(boxes)
    np.testing.assert_array_equal(oriented_nms(boxes, None, 0.3), kept)


def test_corners_are_opencvs_and_ultralytics() -> None:
    from ultralytics.utils.ops import xywhr2xyxyxyxy

    boxes = turned()[0][[0, 1, 2, 3, -1]].T.astype(np.float64)
    expected = xywhr2xyxyxyxy(torch.tensor(boxes)).numpy()  # type: ignore[no-untyped-call]  # as above
    np.testing.assert_allclose(corners_of(boxes), expected, atol=1e-6)


def test_turned_boxes_of_an_image_stretched_twice_as_wide() -> None:
    row = np.array([64, 48, 40, 20, 0.9, np.pi / 4], np.float32)[None, :, None]
    (found,) = YoloOriented()({"rows": row}, [Placement((96, 64), SIZE, (0, 0), SIZE)])
    assert isinstance(found, OrientedBoxes)
    expected = corners_of(np.array([[64, 48, 40, 20, np.pi / 4]])) / (2, 1)
    np.testing.assert_allclose(found.corners, expected, atol=1e-4)
    np.testing.assert_allclose(found.boxes[0], [*expected[0].min(0), *expected[0].max(0)], atol=1e-4)
    assert found.to_dict()["kind"] == "oriented boxes"


def test_a_depth_map_comes_back_to_the_image() -> None:
    placement = Preprocess(height=32, width=32, resize="letterbox").place(20, 40)
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 1, 32, 32))
    (found,) = DepthMap()({"depth": ramp}, [placement])
    assert isinstance(found, Depth)
    assert found.values.shape == (20, 40)
    np.testing.assert_allclose(found.values[:, 1:-1], np.tile((np.arange(1, 39) + 0.5) * 0.8 - 0.5, (20, 1)), atol=1e-4)
    assert found.grey().min() == 0
    assert found.grey().max() == 255


def test_a_super_resolved_picture_keeps_its_pixels() -> None:
    image = np.random.default_rng(4).random((1, 3, 32, 64)).astype(np.float32)
    (found,) = PictureOut()({"image": image}, [Placement((16, 32), (16, 32), (0, 0), (16, 32))])
    assert isinstance(found, Picture)
    np.testing.assert_array_equal(found.pixels, np.floor(image[0].transpose(1, 2, 0).astype(np.float64) * 255 + 0.5))
    boxed = np.zeros((1, 3, 32, 32), np.float32)
    boxed[:, :, 8:24] = image[:, :, :16, :32]
    (found,) = PictureOut()({"image": boxed}, [Placement((8, 16), (8, 16), (4, 0), (16, 16))])
    assert found.pixels.shape == (16, 32, 3)
    np.testing.assert_array_equal(
        found.pixels, np.floor(image[0, :, :16, :32].transpose(1, 2, 0).astype(np.float64) * 255 + 0.5)
    )


def test_each_is_drawn() -> None:
    image = np.full((*SIZE, 3), 90, np.uint8)
    random = np.random.default_rng(5)
    outputs = {
        "yolo-masks": {"rows": head(random.normal(size=(4, COUNT))), "masks": random.normal(size=(1, 4, 24, 32))},
        "yolo-keypoints": {"rows": head(90 * random.random((6, COUNT)))},
        "yolo-oriented": {"rows": turned()},
        "depth": {"depth": random.random((1, 1, *SIZE))},
    }
    for name, arrays in outputs.items():
        options = {"keypoints": 2} if name == "yolo-keypoints" else {}
        decode = decoder_of(Task(kind="detect", decode=name, options=options))
        (found,) = decode({key: np.asarray(value, np.float32) for key, value in arrays.items()}, [IDENTITY])
        drawn = draw(image, found)
        assert drawn.shape == image.shape
        assert (drawn != image).any(axis=2).mean() > 0.02, name
        assert "kind" in found.to_dict()
    assert (image == 90).all()


def test_outputs_of_another_form() -> None:
    with pytest.raises(BundleError, match=r"0 outputs \(prototypes, H, W\) for one image; allowed: one"):
        YoloMasks()({"rows": head(np.zeros((4, COUNT), np.float32))}, [IDENTITY])
    with pytest.raises(BundleError, match=r"2 outputs \(values, N\) for one image"):
        YoloKeypoints(keypoints=1)(
            {"a": np.zeros((1, 9, 4), np.float32), "b": np.zeros((1, 9, 4), np.float32)}, [IDENTITY]
        )
    with pytest.raises(BundleError, match=r"of the depth network has shape \(1, 2, 4, 4\); allowed: \(B, 1, H, W\)"):
        DepthMap()({"depth": np.zeros((1, 2, 4, 4), np.float32)}, [IDENTITY])
    with pytest.raises(BundleError, match=r"of the network has shape \(1, 2, 4, 4\); allowed: \(B, 3, H, W\)"):
        PictureOut()({"image": np.zeros((1, 2, 4, 4), np.float32)}, [IDENTITY])
