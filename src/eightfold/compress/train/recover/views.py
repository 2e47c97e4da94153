"""Batches of unlabelled images for recovery: random views (crop, flip, colour) that stay in the images' domain.

Batch n is the same for the same n and seed. Held-out images never appear in a training batch; where there are too few
images to spare any, checks look at other views of the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import ImageSource, open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.images.resize import Pixels
from eightfold.compress.train.hooks import Batch
from eightfold.compress.types import Batches, ImageBatches
from eightfold.errors import ImageError, UsageError

HELD_SHARE = 0.1
HELD_AT_LEAST, HELD_AT_MOST = 2, 64
HELD_VIEWS = 32
FEW = 6
LARGEST_SIDE = 1024  # of a decoded image that is kept in memory, in pixels
MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class Augment:
    """Random changes that make a view of an image.

    Attributes:
        crop: the smallest share of each side that a crop keeps; 1: no crop.
        flip: whether half of the views are mirrored.
        colour: largest relative change of brightness and contrast, and of each colour by half of that.
    """

    crop: float = 0.5
    flip: bool = True
    colour: float = 0.2


NONE = Augment(crop=1.0, flip=False, colour=0.0)


class Views(Protocol):
    """Source of the training batches."""

    held_out: int

    def __call__(self, number: int) -> Batch: ...

    def held(self) -> Batches:
        """Batches to check on, the same every time."""
        ...


def views_of(
    images: ImageBatches | ImageSource,
    preprocess: Preprocess | None,
    *,
    batch: int,
    augment: Augment,
    seed: int,
    size: tuple[int, int] | None,
) -> Views:
    """Batches of `images`: a tensor [n, channels, height, width], batches of model inputs, or what `open_images` takes.

    Raises:
        ImageError: no image can be read.
        UsageError: no images, or images without `preprocess` or `size`.
    """
    if isinstance(images, Tensor):
        if len(images) == 0:
            raise ImageError("recovery got no images", allowed="at least one; several hundred are better")
        return TensorViews(images, batch, augment, seed)
    if isinstance(images, list | tuple) and images and isinstance(images[0], Tensor | tuple):
        return FixedBatches([each if isinstance(each, tuple) else (each,) for each in images], seed)
    if preprocess is None and size is not None:
        preprocess = Preprocess(height=size[0], width=size[1])
    if preprocess is None:
        raise UsageError("images in files without a preprocess", allowed="preprocess=Preprocess(height=..., width=...)")
    return PictureViews.read(open_images(images), preprocess, batch, augment, seed)


def held_out_split(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(places to train on, places held out); with few images both are all of them."""
    if count < FEW:
        return np.arange(count), np.arange(count)
    order = np.random.default_rng((seed, 1)).permutation(count)
    held = int(np.clip(round(count * HELD_SHARE), HELD_AT_LEAST, HELD_AT_MOST))
    return np.sort(order[held:]), np.sort(order[:held])


@dataclass
class PictureViews:
    """Views of decoded images, each made ready by the network's own preprocessing."""

    pictures: list[Pixels]
    preprocess: Preprocess
    batch: int
    augment: Augment
    seed: int
    skipped: int = 0

    def __post_init__(self) -> None:
        self._train, self._held = held_out_split(len(self.pictures), self.seed)
        self.held_out = len(self._held) if len(self.pictures) >= FEW else 0

    @staticmethod
    def read(images: ImageSet, preprocess: Preprocess, batch: int, augment: Augment, seed: int) -> PictureViews:
        pictures, first, used = [], "", 0
        for place in np.random.default_rng((seed, 0)).permutation(len(images)).tolist():
            try:
                picture = _limited(images.load_for(place, preprocess))
            except ImageError as error:
                first = first or str(error)
                continue
            pictures.append(picture)
            used += picture.nbytes
            if used > MEMORY_BYTES:
                break
        if not pictures:
            raise ImageError(f"none of {len(images)} images can be read ({first})", remedy="name a folder of pictures")
        return PictureViews(pictures, preprocess, batch, augment, seed, len(images) - len(pictures))

    def __call__(self, number: int) -> Batch:
        rng = np.random.default_rng((self.seed, 2, number))
        chosen = rng.choice(self._train, self.batch)
        return Batch((self._stacked([self._view(place, rng, self.augment) for place in chosen]),))

    def held(self) -> Batches:
        """Whole images, and crops of them where there are few."""
        rng = np.random.default_rng((self.seed, 3))
        rows = [self._view(place, rng, NONE) for place in self._held]
        crops = Augment(crop=self.augment.crop, flip=self.augment.flip, colour=0.0)
        rows += [self._view(rng.choice(self._held), rng, crops) for _ in range(HELD_VIEWS - len(rows))]
        return [(part,) for part in torch.split(self._stacked(rows), self.batch)]

    def _stacked(self, rows: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.stack(rows))

    def _view(self, place: int, rng: np.random.Generator, augment: Augment) -> Any:
        picture = self.pictures[place]
        height, width = picture.shape[:2]
        share = rng.uniform(augment.crop, 1)
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        if augment.crop < 1 and self.preprocess.resize == "stretch":
            # A crop of the network's own proportions, so that nothing is stretched.
            side = min(height / self.preprocess.height, width / self.preprocess.width) * share
            rows, columns = max(1, int(self.preprocess.height * side)), max(1, int(self.preprocess.width * side))
        top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
        view = picture[top : top + rows, left : left + columns]
        if augment.flip and rng.random() < 0.5:
            view = view[:, ::-1]
        return self.preprocess(np.ascontiguousarray(_coloured(view, rng, augment.colour)))


def _coloured(view: Pixels, rng: np.random.Generator, colour: float) -> Pixels:
    if not colour:
        return view
    mean = view.mean()
    contrast, brightness = 1 + rng.uniform(-colour, colour), rng.uniform(-colour, colour) / 2
    tint = 1 + rng.uniform(-colour, colour, size=view.shape[-1] if view.ndim == 3 else 1) / 2
    full = np.iinfo(view.dtype).max
    changed = ((view.astype(np.float32) - mean) * contrast + mean) * tint.astype(np.float32) + brightness * full
    coloured: Pixels = np.clip(changed, 0, full).astype(view.dtype)
    return coloured


def _limited(picture: Pixels) -> Pixels:
    """Every second, third ... pixel of a very large picture, smoothed by the mean of its block."""
    step = max(picture.shape[:2]) // LARGEST_SIDE
    if step < 2:
        return picture
    height, width = picture.shape[0] // step * step, picture.shape[1] // step * step
    blocks = picture[:height, :width].reshape(height // step, step, width // step, step, -1)
    smaller: Pixels = blocks.mean((1, 3)).astype(picture.dtype)
    return smaller


@dataclass
class TensorViews:
    """Views of model-ready images [n, channels, height, width], cropped and resized on the tensor."""

    images: Tensor
    batch: int
    augment: Augment
    seed: int

    def __post_init__(self) -> None:
        self._train, self._held = held_out_split(len(self.images), self.seed)
        self.held_out = len(self._held) if len(self.images) >= FEW else 0

    def __call__(self, number: int) -> Batch:
        rng = np.random.default_rng((self.seed, 2, number))
        chosen = rng.choice(self._train, self.batch)
        if self.images.dim() != 4:
            return Batch((self.images[chosen],))
        return Batch((torch.stack([self._view(self.images[place], rng) for place in chosen]),))

    def held(self) -> Batches:
        return [(part,) for part in torch.split(self.images[self._held], self.batch)]

    def _view(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        height, width = image.shape[1:]
        share = rng.uniform(self.augment.crop, 1)
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
        view = image[:, top : top + rows, left : left + columns]
        if view.shape != image.shape:
            resized = functional.interpolate(view[None].float(), (height, width), mode="bilinear", antialias=True)
            view = resized[0].to(image.dtype)
        if self.augment.flip and rng.random() < 0.5:
            view = view.flip(2)
        if self.augment.colour and view.is_floating_point():
            mean, spread = view.mean(), view.std()
            contrast, shift = 1 + rng.uniform(-1, 1) * self.augment.colour, rng.uniform(-1, 1) * self.augment.colour
            view = (view - mean) * contrast + mean + shift * spread / 2
        return view


@dataclass
class FixedBatches:
    """Batches as the caller made them: of networks with several inputs, nothing is known that could be varied."""

    batches: Sequence[tuple[Any, ...]]
    seed: int

    def __post_init__(self) -> None:
        self._train, self._held = held_out_split(len(self.batches), self.seed)
        self.held_out = len(self._held) if len(self.batches) >= FEW else 0

    def __call__(self, number: int) -> Batch:
        rounds, place = divmod(number, len(self._train))
        order = np.random.default_rng((self.seed, 2, rounds)).permutation(self._train)
        return Batch(tuple(self.batches[int(order[place])]))

    def held(self) -> Batches:
        return [self.batches[place] for place in self._held.tolist()]
