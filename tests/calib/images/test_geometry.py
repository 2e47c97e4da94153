from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.calib.images.preprocess import Preprocess

SIDES = st.integers(1, 2000)
RULES = st.sampled_from(["stretch", "letterbox", "center-crop"])


@given(SIDES, SIDES, RULES, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back(height: int, width: int, rule: Any, corners: list[float]) -> None:
    placement = Preprocess(height=96, width=64, resize=rule).place(height, width)
    box = np.array(corners) * (width, height, width, height)
    back = placement.boxes_to_image(placement.boxes_to_tensor(box))
    np.testing.assert_allclose(back, box, atol=1e-6 * max(height, width))


@given(SIDES, SIDES)
def test_a_letterbox_shows_the_whole_image_inside_the_tensor(height: int, width: int) -> None:
    placement = Preprocess(height=96, width=64, resize="letterbox").place(height, width)
    corners = placement.boxes_to_tensor([0, 0, width, height])
    assert (corners[:2] >= 0).all()
    assert (corners[2:] <= (64 + 1e-9, 96 + 1e-9)).all()
    assert 96 in placement.resized or 64 in placement.resized


@given(SIDES, SIDES)
def test_a_centre_crop_fills_the_tensor(height: int, width: int) -> None:
    placement = Preprocess(height=64, width=64, resize="center-crop", shorter_side=80).place(height, width)
    corners = placement.boxes_to_tensor([0, 0, width, height])
    assert (corners[:2] <= 1e-9).all()
    assert (corners[2:] >= 64 - 1e-9).all()


def test_ultralytics_maps_boxes_to_the_same_place() -> None:
    import torch
    from ultralytics.utils.ops import scale_boxes

    placement = Preprocess(height=640, width=640, resize="letterbox").place(427, 611)
    boxes = np.array([[10.0, 120.0, 300.0, 400.0], [0.0, 97.0, 640.0, 543.0]])
    theirs = np.asarray(scale_boxes((640, 640), torch.from_numpy(boxes.copy()), (427, 611)))
    np.testing.assert_allclose(placement.boxes_to_image(boxes), theirs, atol=0.6)


@pytest.mark.parametrize("grid", [(64, 64), (16, 16)])
def test_a_mask_comes_back_to_the_image(grid: tuple[int, int]) -> None:
    placement = Preprocess(height=64, width=64, resize="letterbox").place(100, 200)
    left_half = np.zeros(grid)
    left_half[:, : grid[1] // 2] = 1
    mask = placement.mask_to_image(left_half)
    assert mask.shape == (100, 200)
    assert (mask[:, :90] > 0.5).all()
    assert (mask[:, 110:] < 0.5).all()


def test_what_a_crop_hid_is_empty_in_the_mask() -> None:
    placement = Preprocess(height=64, width=64, resize="center-crop").place(100, 200)
    mask = placement.mask_to_image(np.ones((64, 64)))
    assert mask[:, :40].max() == 0
    assert mask[50, 100] == 1
