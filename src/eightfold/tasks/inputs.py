"""Images as model input, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.calib.images.geometry import Placement
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess

Places = NDArray[np.int64]
# Two threads decode while the caller computes; OpenCV releases the interpreter's lock.
DECODERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode")


@dataclass(frozen=True)
class ImageBatch:
    """Images ready for a network.

    Attributes:
        places: where in their set they are, (n,).
        rows: (batch, ...), the last one repeated where n is less: those answers are to be ignored.
        placements: how each of the n lies in its row.
    """

    places: Places
    rows: Array
    placements: tuple[Placement, ...]


def tensors(images: ImageSet, chosen: Places, preprocess: Preprocess) -> Array:
    """The images at `chosen` as model input (n, ...), with the type and layout that `preprocess` gives."""
    return np.stack([row for row, _ in _loaded(images, chosen, preprocess)])


def shuffled(count: int, batch: int, random: np.random.Generator) -> Iterator[Places]:
    """The places of `count` images in a random order, `batch` at a time; a last batch that is not full is dropped."""
    order = random.permutation(count)
    for start in range(0, count // batch * batch, batch):
        yield order[start : start + batch]


def full_batches(images: ImageSet, preprocess: Preprocess, batch: int) -> Iterator[ImageBatch]:
    """All images in their order, `batch` at a time."""
    for start in range(0, len(images), batch):
        chosen = np.arange(start, min(start + batch, len(images)))
        loaded, placements = zip(*_loaded(images, chosen, preprocess), strict=True)
        yield ImageBatch(chosen, np.stack([*loaded, *loaded[-1:] * (batch - len(loaded))]), placements)


def _loaded(images: ImageSet, chosen: Places, preprocess: Preprocess) -> list[tuple[Array, Placement]]:
    def load(index: int) -> tuple[Array, Placement]:
        pixels = images.load_for(index, preprocess)
        return preprocess(pixels), preprocess.place(*pixels.shape[:2])

    return list(DECODERS.map(load, chosen.tolist()))
