"""Images with a class for each pixel: folders images/ and masks/ of the same names, and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eightfold.calib.images.decode import read_image
from eightfold.calib.images.geometry import Placement
from eightfold.calib.images.images import open_images
from eightfold.errors import ImageError
from eightfold.tasks.dense.picture_pairs import IMAGES, PicturePairs, truths_of

MASKS, CLASSES = "masks", "classes.txt"
UNKNOWN = 255  # pixels that neither train nor count
Mask = NDArray[np.uint8]


class MaskedImages(PicturePairs):
    """Images with a grey picture for each, whose values are classes from 0, and 255 where nobody knows."""

    def mask(self, index: int) -> Mask:
        """(height, width) uint8. Raises ImageError for another size than the image's, or a class without a name."""
        found = np.ascontiguousarray(self.truth(index)[..., 0])
        most = int(found[found != UNKNOWN].max(initial=0))
        if most >= len(self.classes):
            raise ImageError(
                f"{self.truths[index]} has pixels of class {most}",
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
    masks = truths_of(images, folder / MASKS, "mask")
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
