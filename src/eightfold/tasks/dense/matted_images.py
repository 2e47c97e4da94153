"""Images with their mattes: folders images/ and alphas/ of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from eightfold.calib.images.decode import read_image
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.errors import ImageError
from eightfold.files import sha256_of_bytes, sha256_of_file
from eightfold.tasks.dense.matting_metrics import Alpha

IMAGES, ALPHAS = "images", "alphas"


@dataclass(frozen=True, eq=False)
class MattedImages(ImageSet):
    """Images with a grey picture for each, whose 255 is opaque."""

    alphas: tuple[Path, ...] = ()

    def subset(self, indices: Sequence[int]) -> Self:
        return replace(super().subset(indices), alphas=tuple(self.alphas[index] for index in indices))

    def digest(self) -> str:
        """SHA-256 over the bytes of images and mattes, and their order."""
        return sha256_of_bytes("\n".join([super().digest(), *map(sha256_of_file, self.alphas)]).encode())

    def alpha(self, index: int) -> Alpha:
        """(height, width) float32 in 0..1. Raises as `alpha_pixels`."""
        return np.asarray(self.alpha_pixels(index)[..., 0] / np.float32(255), np.float32)

    def alpha_pixels(self, index: int) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 of equal channels. Raises ImageError for another size than the image's."""
        pixels = read_image(self.alphas[index])
        wanted = self.load(index).shape[:2]
        if pixels.shape[:2] != wanted:
            raise ImageError(
                f"{self.alphas[index]} has {pixels.shape[1]}x{pixels.shape[0]} pixels",
                allowed=f"{wanted[1]}x{wanted[0]}, as its image",
            )
        return pixels


def open_mattes(folder: Path) -> MattedImages:
    """The images and mattes of one part. Raises ImageError, which names the first image without a matte."""
    images = open_images(folder / IMAGES)
    known = {path.stem: path for path in sorted((folder / ALPHAS).glob("*"))}
    paths = [item for item in images.items if isinstance(item, Path)]
    for path in paths:
        if path.stem not in known:
            raise ImageError(
                f"{path} has no matte in {folder / ALPHAS}", allowed=f"{ALPHAS}/{path.stem}.png, of the image's size"
            )
    return MattedImages(images.items, None, (), tuple(known[path.stem] for path in paths))
