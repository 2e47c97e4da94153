"""Image sets to calibrate or evaluate with: images, labels, digest, sampling.

A set is decoded image by image and never held in memory.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from eightfold.arrays import Array
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.images.resize import Pixels
from eightfold.calib.images.transform import require_fit
from eightfold.errors import UsageError
from eightfold.files import sha256_of_bytes, sha256_of_file


class ImageWarning(UserWarning):
    """Images were skipped, repeat, or are used for two things that should be apart."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """An ordered set of images, each a file or an array (H, W, C) uint8 or uint16.

    Args:
        items: what the images are read from.
        labels: class index of each image, or None.
        classes: names of the classes, in the order of their indices.
    """

    items: tuple[Path | Pixels, ...]
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Pixels]:
        return (self.load(index) for index in range(len(self)))

    def name(self, index: int) -> str:
        """Path of an image, or its number if it is an array."""
        item = self.items[index]
        return str(item) if isinstance(item, Path) else f"image {index}"

    def load(self, index: int, *, as_stored: bool = False) -> Pixels:
        """(H, W, C), RGB, or with the channels of its file; see `read_image`. Raises ImageError if it cannot be
        read."""
        item = self.items[index]
        return read_image(item, as_stored=as_stored) if isinstance(item, Path) else item

    def load_for(self, index: int, preprocess: Preprocess) -> Pixels:
        """The pixels that `preprocess` takes. Raises ImageError, which names the image, where they do not fit it."""
        pixels = self.load(index, as_stored=preprocess.as_stored)
        require_fit(preprocess, pixels, name=self.name(index))
        return pixels

    def prepared(self, preprocess: Preprocess) -> Iterator[Array]:
        """Each image as one row of the model's input."""
        for index in range(len(self)):
            yield preprocess(self.load_for(index, preprocess))

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of every image's bytes, in order."""
        return tuple(map(_digest_of, self.items))

    def digest(self) -> str:
        """SHA-256 over the images' bytes, their order and their labels; paths do not count."""
        labels = self.labels or (-1,) * len(self)
        lines = (f"{digest} {label}\n" for digest, label in zip(self.digests, labels, strict=True))
        return sha256_of_bytes("".join(lines).encode())

    def sample(self, count: int, *, seed: int = 0) -> Self:
        """At most `count` images, the same ones for the same seed, in the set's order.

        With labels, classes are drawn from in turn, so that their shares differ by at most one while they last.
        """
        if count < 1:
            raise UsageError(f"a sample of {count} images", allowed="at least 1")
        if count >= len(self):
            return self
        order = np.random.default_rng(seed).permutation(len(self))
        if self.labels is not None:
            order = order[np.argsort(_turn(np.asarray(self.labels)[order]), kind="stable")]
        return self.subset(np.sort(order[:count]).tolist())

    def subset(self, indices: Sequence[int]) -> Self:
        """The set of these images, in this order."""
        labels = None if self.labels is None else tuple(self.labels[index] for index in indices)
        return replace(self, items=tuple(self.items[index] for index in indices), labels=labels)


def _digest_of(item: Path | Pixels) -> str:
    if isinstance(item, Path):
        return sha256_of_file(item) if item.is_file() else hashlib.sha256(b"").hexdigest()
    return sha256_of_bytes(str(item.shape).encode() + np.ascontiguousarray(item).tobytes())


def _turn(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each image the number of images of the same class before it."""
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = labels == label
        turn[mine] = np.arange(mine.sum())
    return turn


def warn_of_overlap(training: ImageSet, test: ImageSet) -> int:
    """Warn if images that a network was trained, fitted or calibrated on are test images: its metrics are then too
    good. Returns how many are, by their bytes."""
    known = set(test.digests)
    shared = sum(digest in known for digest in training.digests)
    if shared:
        text = f"{shared} of {len(training)} training images are also test images: the metrics will be too good"
        warnings.warn(ImageWarning(text), stacklevel=2)
    return shared
