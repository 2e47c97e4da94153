"""Image classification: batches for training, and top-1 of anything that maps images to scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eightfold.calib.images import ImageSet, open_images
from eightfold.calib.preprocess import Preprocess
from eightfold.errors import ImageError

Tensor = NDArray[np.float32]
# Two threads decode while the caller computes; OpenCV releases the interpreter's lock.
DECODERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode")


def labelled_images(folder: Path) -> ImageSet:
    """The images of `folder/LABEL/*`. Raises ImageError when they have no labels."""
    images = open_images(folder)
    if images.labels is None:
        raise ImageError(f"the images in {folder} have no labels", allowed="a folder for each label: folder/LABEL/*")
    return images


def labels_of(images: ImageSet) -> NDArray[np.int64]:
    return np.asarray(images.labels, np.int64)


def tensors(images: ImageSet, chosen: NDArray[np.int64], preprocess: Preprocess) -> Tensor:
    """The images at `chosen` as model input, float32 (n, channels, height, width)."""
    return np.stack(list(DECODERS.map(lambda index: preprocess(images.load(index)), chosen.tolist())))


@dataclass(frozen=True)
class TrainingBatches:
    """Shuffled, shifted batches: calling it with an epoch's number gives the same batches every time.

    Attributes:
        images: what to train on. The last batch of an epoch is dropped when it is not full.
        batch: images per batch.
        shift_pixels: each image moves by up to this many pixels in x and y; the edge is repeated.
        seed: with the epoch's number, fixes order and shifts.
    """

    images: ImageSet
    preprocess: Preprocess
    batch: int
    shift_pixels: int
    seed: int

    def __len__(self) -> int:
        return len(self.images) // self.batch

    def __call__(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.images))
        labels = labels_of(self.images)
        for start in range(0, len(self) * self.batch, self.batch):
            chosen = order[start : start + self.batch]
            inputs = shifted(tensors(self.images, chosen, self.preprocess), self.shift_pixels, rng)
            yield torch.from_numpy(inputs), torch.from_numpy(labels[chosen])


def shifted(images: Tensor, pixels: int, rng: np.random.Generator) -> Tensor:
    """Move each image of (n, c, h, w) by its own random offset of up to `pixels`, repeating the edge."""
    if pixels == 0:
        return images
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    offsets = rng.integers(0, 2 * pixels + 1, size=(len(images), 2))
    return np.stack([padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(offsets)])


def top1(
    predict: Callable[[Tensor], NDArray[np.floating]], images: ImageSet, preprocess: Preprocess, *, batch: int
) -> float:
    """Share of `images` whose highest score is at their label, in [0, 1].

    Args:
        predict: float32 (batch, c, h, w) -> scores (batch, classes). Always called with full batches: the last one
            is filled up by repeating its last image, whose scores are then ignored.
        images: the labelled files.
        preprocess: makes the input.
        batch: images per call.
    """
    labels, correct = labels_of(images), 0
    for start in range(0, len(images), batch):
        chosen = np.arange(start, min(start + batch, len(images)))
        inputs = tensors(images, chosen, preprocess)
        filled = np.concatenate([inputs, np.repeat(inputs[-1:], batch - len(inputs), axis=0)])
        best = np.argmax(predict(filled)[: len(chosen)], axis=1)
        correct += int(np.sum(best == labels[chosen]))
    return correct / len(images)
