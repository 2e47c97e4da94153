"""Images as model input, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from eightfold.calib.images import ImageSet
from eightfold.calib.preprocess import Preprocess
from eightfold.runtime.backends.base import Array

Places = NDArray[np.int64]
# Two threads decode while the caller computes; OpenCV releases the interpreter's lock.
DECODERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode")


def tensors(images: ImageSet, chosen: Places, preprocess: Preprocess) -> Array:
    """The images at `chosen` as model input (n, ...), with the type and layout that `preprocess` gives."""
    return np.stack(list(DECODERS.map(lambda index: preprocess(images.load(index)), chosen.tolist())))


def full_batches(images: ImageSet, preprocess: Preprocess, batch: int) -> Iterator[tuple[Places, Array]]:
    """The places of up to `batch` images, and their input (batch, ...): the last one is filled up by repeating its last
    image, whose answers are to be ignored."""
    for start in range(0, len(images), batch):
        chosen = np.arange(start, min(start + batch, len(images)))
        rows = tensors(images, chosen, preprocess)
        yield chosen, np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
