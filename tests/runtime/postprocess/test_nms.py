from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou
from torchvision.ops import nms as torch_nms

from eightfold.arrays import Array
from eightfold.runtime.postprocess.nms import iou, nms, soft_nms


def random_boxes(seed: int, count: int, spread: float = 100.0) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, spread, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 40, (count, 2))], axis=1).astype(np.float32)
    scores = np.sort(random.permutation(count) / count)[::-1].astype(np.float32)
    return boxes, np.ascontiguousarray(scores), random.integers(0, 4, count)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 600), st.floats(0.1, 0.9), st.floats(20, 400))
def test_keeps_what_torchvision_keeps(seed: int, count: int, threshold: float, spread: float) -> None:
    boxes, scores, _ = random_boxes(seed, count, spread)
    expected = torch_nms(torch.tensor(boxes), torch.tensor(scores), threshold)
    np.testing.assert_array_equal(nms(boxes, None, threshold, count), expected)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 600))
def test_classes_do_not_compete(seed: int, count: int) -> None:
    boxes, scores, classes = random_boxes(seed, count)
    expected = batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes), 0.5)
    np.testing.assert_array_equal(nms(boxes, classes, 0.5, count), expected)


def test_the_limit_keeps_the_first() -> None:
    boxes, _, _ = random_boxes(0, 700, 1000)
    np.testing.assert_array_equal(nms(boxes, None, 0.5, 10), nms(boxes, None, 0.5, 700)[:10])


def test_nothing_in_nothing_out() -> None:
    assert len(nms(np.zeros((0, 4), np.float32), None, 0.5, 10)) == 0


def test_iou_is_torchvisions() -> None:
    first, second = random_boxes(1, 30)[0], random_boxes(2, 40)[0]
    np.testing.assert_allclose(iou(first, second), box_iou(torch.tensor(first), torch.tensor(second)), atol=1e-6)


def test_boxes_of_no_area_do_not_suppress_each_other() -> None:
    point = np.array([[5, 5, 5, 5]] * 3, np.float32)
    assert iou(point, point).max() == 0
    assert len(nms(point, None, 0.5, 10)) == 3


def test_an_overlap_of_exactly_the_threshold_is_kept() -> None:
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)  # IoU is exactly one half
    assert nms(boxes, None, 0.5, 10).tolist() == [0, 1]
    assert nms(boxes, None, 0.499, 10).tolist() == [0]


def test_soft_nms_lowers_scores_by_overlap() -> None:
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1], [10, 10, 11, 11]], np.float32)
    scores = np.array([0.9, 0.8, 0.5], np.float32)
    kept, lowered = soft_nms(boxes, scores, None, sigma=0.5, threshold=0.1, limit=10)
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(lowered, [0.9, 0.5, 0.8 * np.exp(-0.25 / 0.5)], rtol=1e-6)


def soft_by_loop(boxes: Array, scores: Array, classes: Array | None, sigma: float) -> dict[int, float]:
    """The paper's figure 2 with its Gaussian, in float64, one pair at a time: the score at which each box is taken."""
    left = {index: float(score) for index, score in enumerate(scores)}
    taken: dict[int, float] = {}
    while left:
        best = max(left, key=lambda index: (left[index], -index))
        taken[best] = left.pop(best)
        for other in left:
            if classes is None or classes[other] == classes[best]:
                pair = torch.tensor(boxes[[best, other]].astype(np.float64))
                overlap = float(box_iou(pair[:1], pair[1:]))
                left[other] *= float(np.exp(-overlap * overlap / sigma))
    return taken


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 25), st.floats(0.1, 2), st.booleans())
@example(1, 20, 1.0, False)  # a score within a rounding of the threshold
def test_soft_nms_is_the_papers(seed: int, count: int, sigma: float, agnostic: bool) -> None:
    boxes, scores, classes = random_boxes(seed, count)
    among = None if agnostic else classes
    kept, lowered = soft_nms(boxes, scores, among, sigma=sigma, threshold=0.05, limit=count)
    taken = soft_by_loop(boxes, scores, among, sigma)
    np.testing.assert_allclose(lowered, [taken[index] for index in kept.tolist()], atol=1e-5)
    # Rounding decides only about a box at the threshold.
    assert {index for index, score in taken.items() if score > 0.05 + 1e-5} <= set(kept.tolist())
    assert (np.diff(lowered) <= 1e-6).all()


@pytest.mark.parametrize(("limit", "threshold", "expected"), [(1, 0.1, [0]), (10, 0.49, [0, 2])])
def test_soft_nms_ends_at_its_limits(limit: int, threshold: float, expected: list[int]) -> None:
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1], [10, 10, 11, 11]], np.float32)
    scores = np.array([0.9, 0.8, 0.5], np.float32)
    kept, _ = soft_nms(boxes, scores, None, sigma=0.5, threshold=threshold, limit=limit)
    assert kept.tolist() == expected
