"""Batches are reproducible; top-1 counts each image once whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError
from eightfold.recipe_sections import TaskSection, TrainSection
from eightfold.tasks.base import Network, Training
from eightfold.tasks.classify import Classify, TrainingBatches, labelled_images, shifted

PREPROCESS = Preprocess(height=8, width=8)
TASK = Classify(TaskSection())


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Eleven grey squares; class k holds images of brightness 100 k + i."""
    for label, count in enumerate((5, 6)):
        (tmp_path / str(label)).mkdir()
        for i in range(count):
            cv2.imwrite(str(tmp_path / str(label) / f"{i}.png"), np.full((8, 8), 100 * label + i, np.uint8))
    return labelled_images(tmp_path)


def brightness(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of a perfect classifier of the images above."""
    bright = inputs.mean(axis=(1, 2, 3)) * 255 > 50
    return np.stack([~bright, bright], axis=1).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
def test_top1_counts_each_image_once(images: ImageSet, batch: int) -> None:
    def top1(scores: Callable[[NDArray[np.float32]], NDArray[Any]]) -> float:
        network = Network(lambda x: {"logits": scores(x)}, batch, PREPROCESS, TASK.outputs_mean(images.classes))
        return TASK.evaluate(network, images)["top1"]

    assert top1(brightness) == 1.0
    assert top1(lambda x: 1 - brightness(x)) == 0.0
    assert top1(lambda x: np.tile([1.0, 0.0], (len(x), 1))) == pytest.approx(5 / 11)


def test_the_same_epoch_gives_the_same_batches(images: ImageSet) -> None:
    batches = TrainingBatches(images, PREPROCESS, batch=4, shift_pixels=1, seed=0)
    first, again, other = list(batches(0)), list(batches(0)), list(batches(1))
    assert len(first) == len(batches) == 2
    for (x, y), (x2, y2) in zip(first, again, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not all(torch.equal(x, x2) for (x, _), (x2, _) in zip(first, other, strict=True))


def test_labels_follow_their_images(images: ImageSet) -> None:
    for inputs, labels in TrainingBatches(images, PREPROCESS, batch=3, shift_pixels=0, seed=1)(0):
        assert torch.equal((inputs.mean(dim=(1, 2, 3)) * 255 > 50).long(), labels)


def test_a_shift_moves_the_content_and_repeats_the_edge() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    seen = {shifted(image, 1, np.random.default_rng(seed)).tobytes() for seed in range(100)}
    padded = np.pad(image[0, 0], 1, mode="edge")
    expected = {padded[y : y + 4, x : x + 4].tobytes() for y in range(3) for x in range(3)}
    assert seen == expected


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint8))
    with pytest.raises(ImageError, match="have no labels; allowed: a folder for each label"):
        labelled_images(tmp_path)


def test_a_class_without_test_images_keeps_its_number(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "train/c", "test/a", "test/c"):
        (tmp_path / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros((4, 4), np.uint8))
    images = labelled_images(tmp_path / "test")
    assert (images.labels, images.classes) == ((0, 2), ("a", "b", "c"))
    (tmp_path / "test" / "c").rename(tmp_path / "test" / "d")
    with pytest.raises(
        ImageError, match=r"test has the class 'd', which .*train lacks; allowed: a, b, c; name the folders"
    ):
        labelled_images(tmp_path / "test")


@pytest.mark.parametrize("batch", [8, 64])
def test_fewer_images_than_a_batch_are_one_batch(images: ImageSet, tmp_path: Path, batch: int) -> None:
    layer = torch.nn.Linear(3 * PREPROCESS.height * PREPROCESS.width, 2)
    model, before = torch.nn.Sequential(torch.nn.Flatten(), layer), layer.weight.detach().clone()
    section = TrainSection(epochs=1, batch=batch, shift_pixels=0)
    loss = TASK.train(model, Training(images, PREPROCESS, section, 0, tmp_path / "checkpoint", "training"))
    assert np.isfinite(loss)
    assert not torch.equal(before, layer.weight)
