"""The C++ runtime gives the answers of the Python one: every decoder on fifty pictures."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact, Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.object_results import InstanceMasks, Keypoints, OrientedBoxes
from eightfold.runtime.postprocess.picture_results import Depth, Picture
from eightfold.runtime.postprocess.results import Classification, Detections, Matte, Segmentation
from tests.cpp.decoder_cases import CASES, OF_MAPS, SIDE, Case
from tests.cpp.native import NativeEngine, NativeResult

MakeBundle = Callable[..., Path]
IMAGES = 50


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_answers(library: ctypes.CDLL, make_bundle: MakeBundle, case: Case) -> None:
    preprocess = Preprocess(**{"height": SIDE, "width": SIDE, "mean": (0.5,), "std": (0.25,)} | case.preprocess)
    task = Task(kind=case.kind, decode=case.decode, options=case.options)
    path = make_bundle(preprocess, task, case.outputs, batches=(1, 4), spreads=case.spreads)
    pictures = [picture(index) for index in range(IMAGES)]
    bundle = Bundle.open(path)
    expected = predictions_of(bundle, bundle.manifest.artifacts[0], pictures)
    actual = NativeEngine(library, path, threads=1).run(pictures)
    assert len(actual) == len(expected) == IMAGES
    for index, answer in enumerate(expected):
        compare(answer, actual, index)
    assert any(meaningful(answer) for answer in expected), "the case tests nothing"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_answers_at_each_size_of_a_bundle(library: ctypes.CDLL, make_bundle: MakeBundle, case: Case) -> None:
    preprocess = Preprocess(**{"height": SIDE, "width": SIDE, "mean": (0.5,), "std": (0.25,)} | case.preprocess)
    task = Task(kind=case.kind, decode=case.decode, options=case.options)
    # Maps of a detector's levels have as many cells here as at the default size.
    other = (2 * SIDE, 2 * SIDE) if case.decode in OF_MAPS else (48, 80)
    sizes = (other, (SIDE, SIDE))
    path = make_bundle(preprocess, task, case.outputs, batches=(1, 4), spreads=case.spreads, sizes=sizes)
    pictures, bundle = [picture(index) for index in range(10)], Bundle.open(path)
    for artifact in bundle.manifest.artifacts[::2]:
        height, width = artifact.image_size(preprocess.layout) or (0, 0)
        expected = predictions_of(bundle, artifact, pictures)
        actual = NativeEngine(library, path, threads=1, height=height, width=width).run(pictures)
        for index, answer in enumerate(expected):
            compare(answer, actual, index)
        assert any(meaningful(answer) for answer in expected), "the case tests nothing"


def picture(index: int) -> NDArray[np.uint8]:
    """Blocks of colour with noise, of a size of its own."""
    random = np.random.default_rng(index)
    height, width = (int(side) for side in random.integers(20, 200, 2))
    blocks = random.integers(0, 256, (4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    noise = random.integers(-20, 20, (height, width, 3))
    return np.asarray(np.clip(blocks[rows][:, columns] + noise, 0, 255), np.uint8)


def predictions_of(bundle: Bundle, artifact: Artifact, pictures: list[NDArray[np.uint8]]) -> list[Any]:
    """As Predictor, but with the reference preprocessing, which the C++ runtime follows to the last bit."""
    preprocess, decode = bundle.manifest.preprocess_of(artifact), decoder_of(bundle.manifest.task)
    path = bundle.artifact_path(artifact)
    slot = open_session(path, "onnxruntime", SessionOptions(threads=1)).new_slot()
    answers: list[Any] = []
    for pixels in pictures:
        slot.inputs["images"][0] = preprocess.reference(pixels)
        slot.run()
        answers += decode(slot.outputs, [preprocess.place(*pixels.shape[:2])])
    return answers


def meaningful(answer: Any) -> bool:
    if isinstance(answer, Detections):
        return len(answer) > 1
    if isinstance(answer, Segmentation):
        return len(np.unique(answer.classes)) > 1
    return True


def compare(expected: Any, actual: NativeResult, index: int) -> None:
    if isinstance(expected, Classification):
        assert [each.index for each in expected.top] == [label for label, _ in actual.classes(index)]
        np.testing.assert_allclose(
            [each.probability for each in expected.top], [score for _, score in actual.classes(index)], atol=1e-4
        )
    elif isinstance(expected, Detections):
        detections = actual.detections(index)
        assert len(detections) == len(expected)
        np.testing.assert_array_equal(detections[:, 5], expected.classes)
        np.testing.assert_allclose(detections[:, 4], expected.scores, atol=1e-4)
        np.testing.assert_allclose(detections[:, :4], expected.boxes, atol=0.01)
        compare_parts(expected, actual, index)
    elif isinstance(expected, Segmentation):
        np.testing.assert_array_equal(actual.segments(index), expected.classes.ravel())
    elif isinstance(expected, Depth):
        np.testing.assert_allclose(actual.depth(index), expected.values.ravel(), atol=1e-5)
    elif isinstance(expected, Picture):
        np.testing.assert_array_equal(actual.picture(index), expected.pixels)
    else:
        assert isinstance(expected, Matte)
        np.testing.assert_allclose(actual.alpha(index), expected.alpha.ravel(), atol=1e-6)


def compare_parts(expected: Detections, actual: NativeResult, index: int) -> None:
    """Compares what objects have besides boxes."""
    if isinstance(expected, InstanceMasks):
        masks = actual.masks(index)
        assert [(left, top) for left, top, _ in masks] == [tuple(origin) for origin in expected.origins.tolist()]
        assert [mask.shape for *_, mask in masks] == [mask.shape for mask in expected.masks]
        differ = sum(int((mask != known).sum()) for (*_, mask), known in zip(masks, expected.masks, strict=True))
        assert differ <= 1e-4 * sum(mask.size for mask in expected.masks) + 1  # rounding at a logit of 0
    elif isinstance(expected, Keypoints):
        points = expected.keypoints.reshape(-1, 3)
        np.testing.assert_allclose(actual.keypoints(index)[:, :2], points[:, :2], atol=0.01)
        np.testing.assert_allclose(actual.keypoints(index)[:, 2], points[:, 2], atol=1e-4)
    elif isinstance(expected, OrientedBoxes):
        np.testing.assert_allclose(actual.corners(index), expected.corners.reshape(-1, 8), atol=0.01)
