"""Networks that answer with a picture: depth, and images such as a super-resolved one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement, shared_area
from eightfold.calib.images.resize import resize_float
from eightfold.runtime.postprocess.decoder import Decoder, the_output, wrong_shape
from eightfold.runtime.postprocess.picture_results import Depth, Picture


class DepthMap(Decoder):
    """`depth`: one value a pixel, from one output (B, 1, H, W) or (B, H, W)."""

    output: str = ""

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Depth]:
        values = the_output(outputs, self.output)
        if values.ndim == 4 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 3:
            raise wrong_shape("of the depth network", values, "(B, 1, H, W) or (B, H, W)")
        pairs = zip(values, placements, strict=False)
        return [Depth(place.mask_to_image(row).astype(np.float32)) for row, place in pairs]


class PictureOut(Decoder):
    """`picture`: an image from one output (B, 3, H, W); a super-resolution's is larger than its input."""

    output: str = ""
    scale: float = Field(default=255.0, gt=0)

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Picture]:
        images = the_output(outputs, self.output)
        if images.ndim != 4 or images.shape[1] != 3:
            raise wrong_shape("of the network", images, "(B, 3, H, W)")
        return [self._picture(row, place) for row, place in zip(images, placements, strict=False)]

    def _picture(self, image: Array, placement: Placement) -> Picture:
        """The tensor's area that shows the image, resized where the tensor's scale is not the image's."""
        factor = image.shape[1] / placement.tensor[0], image.shape[2] / placement.tensor[1]
        (rows, columns), _ = shared_area(placement)
        part = image[:, _scaled(rows, factor[0]), _scaled(columns, factor[1])].transpose(1, 2, 0)
        size = round(placement.source[0] * factor[0]), round(placement.source[1] * factor[1])
        pixels = part.astype(np.float64) * self.scale
        if pixels.shape[:2] != size:
            pixels = resize_float(pixels, *size, interpolation="bilinear")
        return Picture(np.floor(np.clip(pixels, 0, 255) + 0.5).astype(np.uint8), factor)


def _scaled(part: slice, factor: float) -> slice:
    return slice(round(part.start * factor), round(part.stop * factor))
