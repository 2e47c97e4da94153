"""The stream of model-ready rows that calibration feeds on: images through a `Preprocess`, or tensors as they come.

What cannot be read is skipped, counted and warned about; more than `MAX_SKIPPED` of it is an error.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet, ImageWarning
from eightfold.calib.images.images import ImageSource, open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import CalibrationError, ImageError
from eightfold.progress import track

MAX_SKIPPED = 0.05
T = TypeVar("T")
Tensor = Array
NamedRow = tuple[str, Tensor]


@dataclass
class Tally:
    """Counts of the images that a stream has delivered so far."""

    used: int = 0
    skipped: int = 0
    first_reason: str = ""
    distinct: set[bytes] = field(default_factory=set)
    chain: bytes = b""

    def use(self, content: bytes) -> None:
        """Count an image that was used."""
        self.used += 1
        self.distinct.add(content)
        self.chain = hashlib.sha256(self.chain + content).digest()

    def skip(self, reason: str) -> None:
        """Count an image that was skipped, and warn."""
        self.skipped += 1
        self.first_reason = self.first_reason or reason
        warnings.warn(ImageWarning(f"skipped: {reason}"), stacklevel=2)

    def too_many_skipped(self, total: int) -> bool:
        """True if more images were skipped than is allowed of `total`."""
        return self.skipped > MAX_SKIPPED * total

    def digest(self) -> str:
        """SHA-256 over the content of what was used, in order."""
        return self.chain.hex()


@dataclass(frozen=True)
class DataReader:
    """Named tensors without batch axis, one after another. After one iteration `tally` tells what was used.

    Args:
        images: an ImageSet, or an iterable of images (H, W, C) uint8 or, without `preprocess`, of tensors.
        preprocess: how an image becomes a row; None where the tensors are ready for the model.
        row_shape: shape of one row of the model's input; -1 where any size will do.
        dtype: type of the model's input; "" where any will do. Tensors of floats are converted to a float input.
    """

    images: ImageSet | Iterable[Any]
    preprocess: Preprocess | None
    row_shape: tuple[int, ...]
    dtype: str = ""
    tally: Tally = field(default_factory=Tally)

    @property
    def total(self) -> int | None:
        """Number of images, where the source knows it."""
        return len(self.images) if isinstance(self.images, ImageSet | list | tuple | np.ndarray) else None

    @property
    def left(self) -> int | None:
        """Number of images that were not delivered yet, where the source knows it."""
        return None if self.total is None else self.total - self.tally.used - self.tally.skipped

    def __iter__(self) -> Iterator[NamedRow]:
        """Yield (name, row).

        Raises:
            ImageError: no images, none that can be read, or too few of them.
            CalibrationError: a row does not fit the model's input.
        """
        for name, read in self._items():
            try:
                content, image = read()
                rows = self._rows_of(image, name)
            except ImageError as error:
                self._skip(error.seen)
                continue
            for row in rows:
                self.tally.use(content)
                yield name, row
        self._check_at_end()

    def _items(self) -> Iterator[tuple[str, Callable[[], tuple[bytes, Tensor]]]]:
        """(name, function that reads the image and gives its content's digest beside it)."""
        if isinstance(self.images, ImageSet):
            # What a checkpoint counts is not read again.
            for index in range(self.tally.used + self.tally.skipped, len(self.images)):
                yield self.images.name(index), _reader(self.images, index, self.preprocess)
        else:
            for index, image in enumerate(self.images):
                yield f"image {index}", _hasher(_array_of(image, f"image {index}"))

    def _rows_of(self, image: Tensor, name: str) -> list[Tensor]:
        """One row, or the rows of a batch that is ready for the model."""
        if self.preprocess is not None:
            return [self._fitting(self.preprocess(image), name)]
        ready = image if image.ndim == len(self.row_shape) + 1 else image[None]
        if image.dtype.kind == "f" and self.dtype.startswith("float"):
            ready = ready.astype(self.dtype, copy=False)
        return [self._fitting(row, name) for row in ready]

    def _fitting(self, row: Tensor, name: str) -> Tensor:
        if len(row.shape) != len(self.row_shape) or any(
            want not in (-1, have) for want, have in zip(self.row_shape, row.shape, strict=True)
        ):
            raise CalibrationError(
                f"{name} gives a tensor of shape {row.shape}",
                allowed=f"{self.row_shape}, the model's input without its batch axis",
                remedy="give the Preprocess the model's size and layout",
            )
        if self.dtype and row.dtype != self.dtype:
            raise CalibrationError(
                f"{name} gives a tensor of {row.dtype}",
                allowed=f"{self.dtype}, the type of the model's input",
                remedy=self._type_remedy(row),
            )
        return row

    def _type_remedy(self, row: Tensor) -> str:
        if self.preprocess is None:
            return "scale uint8 pixels by a Preprocess" if row.dtype == np.uint8 else f"convert it to {self.dtype}"
        if self.dtype in ("float32", "uint8"):
            return f"give the Preprocess dtype: {self.dtype}"
        return "put a Cast in front of the model's input; a Preprocess gives float32 or uint8"

    def _skip(self, reason: str) -> None:
        self.tally.skip(reason)
        if self.total is not None and self.tally.used and self.tally.too_many_skipped(self.total):
            self._refuse(self.total)

    def _check_at_end(self) -> None:
        tally = self.tally
        if tally.used + tally.skipped == 0:
            raise ImageError("no images to calibrate with", allowed="at least one", remedy="check the source")
        if not tally.used:
            raise ImageError(f"none of the {tally.skipped} images can be read, the first: {tally.first_reason}")
        if tally.too_many_skipped(tally.used + tally.skipped):
            self._refuse(tally.used + tally.skipped)
        if len(tally.distinct) == 1 and tally.used > 1:
            text = f"all {tally.used} calibration images are the same image; its ranges will not fit others"
            warnings.warn(ImageWarning(text), stacklevel=3)

    def _refuse(self, total: int) -> None:
        raise ImageError(
            f"{self.tally.skipped} of {total} images cannot be read, the first: {self.tally.first_reason}",
            allowed=f"at most {MAX_SKIPPED:.0%}",
            remedy="remove or replace them",
        )


def _reader(images: ImageSet, index: int, preprocess: Preprocess | None) -> Callable[[], tuple[bytes, Tensor]]:
    def read() -> Tensor:
        return images.load(index) if preprocess is None else images.load_for(index, preprocess)

    return lambda: (bytes.fromhex(images.digests[index]), read())


def _hasher(image: Tensor) -> Callable[[], tuple[bytes, Tensor]]:
    return lambda: (hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest(), image)


def _array_of(item: Any, name: str) -> Tensor:
    """An image or tensor; the first of a pair that data loaders of labelled images give.

    Raises:
        CalibrationError: anything else.
    """
    if isinstance(item, tuple | list) and _is_labelled(item):
        item = item[0]
    try:
        array = np.asarray(item.detach() if hasattr(item, "detach") else item)
    except (ValueError, TypeError, RuntimeError):  # ragged lists, tensors on another device
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        inner = f" of {type(item[0]).__name__}" if isinstance(item, list | tuple) and item else ""
        raise CalibrationError(
            f"{name} is a {type(item).__name__}{inner}",
            allowed="an array or a tensor on the CPU, or a pair of one with its label",
            remedy="select the images from the data loader's items",
        )
    return array


def _is_labelled(item: Sequence[Any]) -> bool:
    """Tells a pair by its parts: an image or a batch of images first, and something of another shape behind it."""
    shapes = [getattr(each, "shape", None) for each in item]
    first = shapes[0] if shapes else None
    return first is not None and len(first) >= 2 and any(each != first for each in shapes[1:])


def open_data(
    images: ImageSource, preprocess: Preprocess | None, row_shape: tuple[int, ...], dtype: str = ""
) -> DataReader:
    """Rows from whatever `ef.calibrate` takes as images: what `open_images` opens, or any iterable."""
    if isinstance(images, ImageSet | str | Path):
        return DataReader(open_images(images), preprocess, row_shape, dtype)
    if isinstance(images, list | tuple) and images and isinstance(images[0], str | Path):
        return DataReader(open_images(images), preprocess, row_shape, dtype)
    if not isinstance(images, Iterable):
        raise CalibrationError(
            f"images of type {type(images).__name__}", allowed="a folder, list, array, data loader or iterator of them"
        )
    return DataReader(images, preprocess, row_shape, dtype)


def peeked(rows: DataReader, what: str) -> tuple[Tensor, Iterator[NamedRow]]:
    """The first row, and the stream of all named rows with it, showing progress as `what`.

    Raises:
        ImageError: there are none.
    """
    stream = iter(track(rows, what, total=rows.left))
    first = next(stream, None)
    if first is None:  # an empty stream has raised by now; this says so to type checkers
        raise ImageError("no images", allowed="at least one")
    return first[1], chain([first], stream)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
