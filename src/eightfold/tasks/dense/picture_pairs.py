"""Images with a grey picture of the truth for each, of the same name in a folder beside theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from eightfold.calib.images.decode import read_image
from eightfold.calib.images.image_set import ImageSet
from eightfold.errors import ImageError
from eightfold.files import sha256_of_bytes, sha256_of_file

IMAGES = "images"


@dataclass(frozen=True, eq=False)
class PicturePairs(ImageSet):
    """Images, and a picture of the same size for each."""

    truths: tuple[Path, ...] = ()

    def subset(self, indices: Sequence[int]) -> Self:
        return replace(super().subset(indices), truths=tuple(self.truths[index] for index in indices))

    def digest(self) -> str:
        """SHA-256 over the bytes of images and truths, and their order."""
        return sha256_of_bytes("\n".join([super().digest(), *map(sha256_of_file, self.truths)]).encode())

    def truth(self, index: int) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 of equal channels. Raises ImageError for another size than the image's."""
        pixels = read_image(self.truths[index])
        wanted = self.load(index).shape[:2]
        if pixels.shape[:2] != wanted:
            raise ImageError(
                f"{self.truths[index]} has {pixels.shape[1]}x{pixels.shape[0]} pixels",
                allowed=f"{wanted[1]}x{wanted[0]}, as its image",
            )
        return pixels


def truths_of(images: ImageSet, folder: Path, what: str) -> tuple[Path, ...]:
    """The picture in `folder` for each image. Raises ImageError, which names the first image without one.

    Args:
        what: a picture is called so: "mask", "matte".
    """
    known = {path.stem: path for path in sorted(folder.glob("*"))}
    paths = [item for item in images.items if isinstance(item, Path)]
    for path in paths:
        if path.stem not in known:
            raise ImageError(
                f"{path} has no {what} in {folder}", allowed=f"{folder.name}/{path.stem}.png, of the image's size"
            )
    return tuple(known[path.stem] for path in paths)
