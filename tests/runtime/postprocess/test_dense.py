from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eightfold.calib.images.geometry import Placement, place
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError
from eightfold.runtime.postprocess.dense import AlphaMatte, AsTheyAre, Segment, labels_in_image

IDENTITY = Placement((6, 8), (6, 8), (0, 0), (6, 8))


def labels_by_loop(cells: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """The page docs/decoders.md, read aloud."""
    result = np.full(placement.source, 255, np.uint8)
    for i, j in np.ndindex(*placement.source):
        v = (i + 0.5) * placement.scale[0] + placement.offset[0]
        u = (j + 0.5) * placement.scale[1] + placement.offset[1]
        row = math.floor(v * cells.shape[0] / placement.tensor[0])
        column = math.floor(u * cells.shape[1] / placement.tensor[1])
        if 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]:
            result[i, j] = cells[row, column]
    return result


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["stretch", "letterbox", "center-crop"]), st.integers(0, 99)
)
def test_labels_follow_the_definition(height: int, width: int, rule: str, seed: int) -> None:
    preprocess = Preprocess.model_validate({"height": 16, "width": 24, "resize": rule})
    placement = place(preprocess, height, width)
    cells = np.random.default_rng(seed).integers(0, 20, (8, 12)).astype(np.uint8)
    np.testing.assert_array_equal(labels_in_image(cells, placement), labels_by_loop(cells, placement))


def test_the_best_class_of_each_pixel() -> None:
    scores = np.random.default_rng(0).random((2, 3, 6, 8)).astype(np.float32)
    (answer,) = Segment(labels=("road", "car"))({"o": scores}, [IDENTITY])
    np.testing.assert_array_equal(answer.classes, scores[0].argmax(axis=0))
    assert sum(answer.shares().values()) == pytest.approx(1)
    assert "road" in answer.shares()
    assert "2" in answer.shares()


def test_one_class_is_a_threshold() -> None:
    scores = np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 1, 6, 8)
    (answer,) = Segment()({"o": scores}, [IDENTITY])
    np.testing.assert_array_equal(answer.classes, scores[0, 0] > 0)


def test_a_matte_and_what_it_composes() -> None:
    alpha = np.random.default_rng(0).random((1, 1, 6, 8)).astype(np.float32)
    (answer,) = AlphaMatte()({"o": alpha}, [IDENTITY])
    np.testing.assert_allclose(answer.alpha, alpha[0, 0], atol=1e-6)
    white, black = np.full((6, 8, 3), 255, np.uint8), np.zeros(3, np.uint8)
    np.testing.assert_array_equal(answer.composite(white, black)[..., 0], np.floor(answer.alpha * 255 + 0.5))
    assert answer.to_dict()["size"] == [6, 8]


def test_tensors_belong_to_the_caller() -> None:
    outputs = {"a": np.ones((2, 3), np.float32)}
    (answer,) = AsTheyAre()(outputs, [IDENTITY])
    outputs["a"][:] = 0
    assert answer.to_dict() == {"kind": "tensors", "arrays": {"a": [1.0, 1.0, 1.0]}}


@pytest.mark.parametrize(("decoder", "channels"), [(AlphaMatte(), 2), (Segment(), 256)])
def test_outputs_that_do_not_fit(decoder: AlphaMatte | Segment, channels: int) -> None:
    with pytest.raises(BundleError, match=rf"shape \(1, {channels}, 2, 2\)"):
        decoder({"o": np.zeros((1, channels, 2, 2), np.float32)}, [IDENTITY])
