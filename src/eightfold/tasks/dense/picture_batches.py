"""Training batches of images with a picture of the truth for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.tasks.inputs import shuffled, tensors

if TYPE_CHECKING:
    from torch import Tensor

Pictures = TypeVar("Pictures", bound=ImageSet)


@dataclass(frozen=True)
class PictureBatches(Generic[Pictures]):
    """Shuffled batches, half of the images mirrored; the same for an epoch's number every time."""

    images: Pictures
    preprocess: Preprocess
    batch: int
    seed: int

    def __len__(self) -> int:
        return len(self.images) // self.batch

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        random = np.random.default_rng((self.seed, epoch))
        for chosen in shuffled(len(self.images), self.batch, random):
            rows = tensors(self.images, chosen, self.preprocess)
            truth = np.stack([self.truth(index) for index in chosen.tolist()])
            mirrored = random.random(len(chosen)) < 0.5
            rows[mirrored], truth[mirrored] = rows[mirrored][..., ::-1], truth[mirrored][..., ::-1]
            yield self.pair(rows, truth)

    @abstractmethod
    def truth(self, index: int) -> Array:
        """Of one image, in the geometry of the preprocessing."""

    @abstractmethod
    def pair(self, rows: Array, truth: Array) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a batch."""
