"""Images with their mattes: folders images/ and alphas/ of the same names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eightfold.calib.images.images import open_images
from eightfold.tasks.dense.matting_metrics import Alpha
from eightfold.tasks.dense.picture_pairs import IMAGES, PicturePairs, truths_of

ALPHAS = "alphas"


class MattedImages(PicturePairs):
    """Images with a grey picture for each, whose 255 is opaque."""

    def alpha(self, index: int) -> Alpha:
        """(height, width) float32 in 0..1. Raises as `truth`."""
        return np.asarray(self.truth(index)[..., 0] / np.float32(255), np.float32)


def open_mattes(folder: Path) -> MattedImages:
    """The images and mattes of one part. Raises ImageError, which names the first image without a matte."""
    images = open_images(folder / IMAGES)
    return MattedImages(images.items, None, (), truths_of(images, folder / ALPHAS, "matte"))
