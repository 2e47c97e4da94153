"""Maps an image into the tensor, and boxes, points and masks back into the image. Pure numpy.

Coordinates are continuous: pixel i covers [i, i + 1), its centre is i + 0.5. A box is (x1, y1, x2, y2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eightfold.calib.images.preprocess_rules import PreprocessRules
from eightfold.calib.images.resize import resize_float

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Placement:
    """An image of `source` (height, width) is resized to `resized`, and its top left corner is put at `offset`
    (top, left) of a tensor of size `tensor`. A negative offset crops.

    >>> placement = Placement(source=(100, 200), resized=(32, 64), offset=(16, 0), tensor=(64, 64))
    >>> placement.boxes_to_image([[0, 16, 32, 48]])
    array([[  0.,   0., 100., 100.]])
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    tensor: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Tensor pixels per image pixel, vertical and horizontal."""
        return self.resized[0] / self.source[0], self.resized[1] / self.source[1]

    def points_to_image(self, points: npt.ArrayLike) -> Floats:
        """(..., 2) points x, y in the tensor -> the same in the image, cut to the image."""
        (scale_y, scale_x), (top, left) = self.scale, self.offset
        image = (np.asarray(points, dtype=np.float64) - (left, top)) / (scale_x, scale_y)
        return np.clip(image, 0, (self.source[1], self.source[0]))

    def points_to_tensor(self, points: npt.ArrayLike) -> Floats:
        """(..., 2) points x, y in the image -> the same in the tensor (not cut)."""
        (scale_y, scale_x), (top, left) = self.scale, self.offset
        return np.asarray(points, dtype=np.float64) * (scale_x, scale_y) + (left, top)

    def boxes_to_image(self, boxes: npt.ArrayLike) -> Floats:
        """(..., 4) boxes x1, y1, x2, y2 in the tensor -> the same in the image, cut to the image."""
        boxes = np.asarray(boxes, dtype=np.float64)
        return self.points_to_image(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)

    def boxes_to_tensor(self, boxes: npt.ArrayLike) -> Floats:
        """(..., 4) boxes x1, y1, x2, y2 in the image -> the same in the tensor (not cut)."""
        boxes = np.asarray(boxes, dtype=np.float64)
        return self.points_to_tensor(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)

    def mask_to_image(self, mask: npt.ArrayLike) -> Floats:
        """(height, width) scores over the tensor, or a coarser grid of the same extent -> (H, W) over the image.

        Bilinear. What the tensor did not show (a centre crop's border) is 0.
        """
        mask = np.asarray(mask, dtype=np.float64)
        if mask.shape != self.tensor:
            mask = resize_float(mask[..., None], *self.tensor, interpolation="bilinear")[..., 0]
        canvas = np.zeros(self.resized)
        (tensor_rows, image_rows), (tensor_columns, image_columns) = map(
            _overlap, self.offset, self.tensor, self.resized
        )
        canvas[image_rows, image_columns] = mask[tensor_rows, tensor_columns]
        return resize_float(canvas[..., None], *self.source, interpolation="bilinear")[..., 0]


def _overlap(offset: int, tensor: int, image: int) -> tuple[slice, slice]:
    """The pixels of one axis that tensor and resized image share, in the coordinates of each."""
    low, high = max(offset, 0), min(offset + image, tensor)
    return slice(low, high), slice(low - offset, high - offset)


def shared_area(placement: Placement) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """(rows, columns) that tensor and resized image share: in the tensor, and in the resized image."""
    rows, columns = map(_overlap, placement.offset, placement.tensor, placement.resized)
    return (rows[0], columns[0]), (rows[1], columns[1])


def place(preprocess: PreprocessRules, height: int, width: int) -> Placement:
    """Placement of an image of `height` x `width` pixels by the rules of `preprocess`.

    - stretch: the image fills the tensor.
    - letterbox: ratio r = min(H / h, W / w); the image becomes round(h * r) x round(w * r) (half to even, as
      `std::nearbyint`), at least one pixel; what is left is split with the odd pixel at the bottom and the right
      (`center`), or lies there whole (`top-left`). The same as ultralytics' LetterBox.
    - center-crop: the shorter side becomes `shorter_side` (the larger of the tensor's sides where it is None), the
      longer one floor(shorter_side * longer / shorter); the crop starts at round((size - crop) / 2), half to even. The
      same as torchvision's Resize and CenterCrop.
    """
    tensor = (preprocess.height, preprocess.width)
    if preprocess.resize == "letterbox":
        resized, offset = _letterbox(height, width, tensor, preprocess.anchor)
    elif preprocess.resize == "center-crop":
        resized, offset = _center_crop(height, width, tensor, preprocess.shorter_side or max(tensor))
    else:
        resized, offset = tensor, (0, 0)
    return Placement((height, width), resized, offset, tensor)


def _letterbox(
    height: int, width: int, tensor: tuple[int, int], anchor: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    ratio = min(tensor[0] / height, tensor[1] / width)
    resized = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    if anchor == "top-left":
        return resized, (0, 0)
    return resized, ((tensor[0] - resized[0]) // 2, (tensor[1] - resized[1]) // 2)


def _center_crop(
    height: int, width: int, tensor: tuple[int, int], side: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    shorter, longer = min(height, width), max(height, width)
    long_side = int(side * longer / shorter)
    resized = (side, long_side) if height <= width else (long_side, side)
    return resized, (-round((resized[0] - tensor[0]) / 2), -round((resized[1] - tensor[1]) / 2))
