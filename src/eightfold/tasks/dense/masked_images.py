"""Images with a class for each pixel: folders images/ and masks/ of the same names, and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from eightfold.calib.images.decode import read_image
from eightfold.calib.images.geometry import Placement
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.errors import ImageError
from eightfold.files import sha256_of_bytes, sha256_of_file

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
UNKNOWN = 255  # pixels that neither train nor count
Mask = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MaskedImages(ImageSet):
    """Images with a grey picture for each, whose values are classes from 0, and 255 where nobody knows."""

    masks: tuple[Path, ...] = ()

    def subset(self, indices: Sequence[int]) -> Self:
        return replace(super().subset(indices), masks=tuple(self.masks[index] for index in indices))

    def digest(self) -> str:
        """SHA-256 over the bytes of images and masks, and their order."""
        return sha256_of_bytes("\n".join([super().digest(), *map(sha256_of_file, self.masks)]).encode())

    def mask(self, index: int) -> Mask:
        """(height, width) uint8. Raises ImageError for another size than the image's, or a class without a name."""
        found = np.ascontiguousarray(read_image(self.masks[index])[..., 0])
        wanted = self.load(index).shape[:2]
        if found.shape != wanted:
            raise ImageError(
                f"{self.masks[index]} has {found.shape[1]}x{found.shape[0]} pixels",
                allowed=f"{wanted[1]}x{wanted[0]}, as its image",
            )
        most = int(found[found != UNKNOWN].max(initial=0))
        if most >= len(self.classes):
            raise ImageError(
                f"{self.masks[index]} has pixels of class {most}",
                allowed=f"0 to {len(self.classes) - 1}, or {UNKNOWN} for unknown",
                remedy=f"correct the mask, or name all classes in {CLASSES}, one a line",
            )
        return found


def open_masks(folder: Path, classes: Sequence[str] = ()) -> MaskedImages:
    """The images and masks of one part.

    Args:
        classes: their names; by default those of classes.txt in the folder or beside it, else the numbers up to the
            largest one in the masks.

    Raises:
        ImageError: names the first image without a mask.
    """
    images = open_images(folder / IMAGES)
    known = {path.stem: path for path in sorted((folder / MASKS).glob("*"))}
    paths = [item for item in images.items if isinstance(item, Path)]
    for path in paths:
        if path.stem not in known:
            raise ImageError(
                f"{path} has no mask in {folder / MASKS}", allowed=f"{MASKS}/{path.stem}.png, of the image's size"
            )
    masks = tuple(known[path.stem] for path in paths)
    return MaskedImages(images.items, None, tuple(classes) or _named(folder) or _numbered(masks), masks)


def _named(folder: Path) -> tuple[str, ...]:
    for file in (folder / CLASSES, folder.parent / CLASSES):
        if file.is_file():
            return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return ()


def _numbered(masks: Sequence[Path]) -> tuple[str, ...]:
    most = 0
    for path in masks:
        values = read_image(path)[..., 0]
        most = max(most, int(values[values != UNKNOWN].max(initial=0)))
    return tuple(map(str, range(most + 1)))


def mask_in_tensor(mask: Mask, placement: Placement) -> Mask:
    """(image height, image width) -> (H, W) of the tensor: each pixel takes the image pixel that its centre lies in;
    unknown where there is no image. The inverse of the decoder's way back."""
    rows, columns = (_sources(axis, placement) for axis in (0, 1))
    bordered = np.pad(mask, 1, constant_values=UNKNOWN)
    found: Mask = bordered[rows + 1][:, columns + 1]
    return found


def _sources(axis: int, placement: Placement) -> NDArray[np.intp]:
    centres = (np.arange(placement.tensor[axis]) + 0.5 - placement.offset[axis]) / placement.scale[axis]
    found: NDArray[np.intp] = np.clip(np.floor(centres), -1, placement.source[axis]).astype(np.intp)
    return found
