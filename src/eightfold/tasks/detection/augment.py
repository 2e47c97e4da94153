"""Augmentation of images with boxes: mosaics, affine maps, mirrors and colour. Plain numpy and OpenCV, on uint8 RGB.

Boxes are float64 [n, 4], x1, y1, x2, y2 in pixels. Objects that a mosaic or an affine map cuts to a small rest are
dropped, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import UsageError
from eightfold.extras import require

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float64]
GREY = 114
LEAST_SIDE, LEAST_SHARE, MOST_ASPECT = 4.0, 0.2, 10.0  # of a box after it is cut


class Labelled(NamedTuple):
    """An image uint8 [height, width, 3] with its boxes [n, 4] and classes int64 [n]."""

    image: Pixels
    boxes: Boxes
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class DetectionAugment:
    """
    Attributes:
        mosaic: share of images made of four.
        degrees, translate, scale, shear: largest rotation in degrees, shift and change of size as shares, shear in
            degrees.
        mirror: share of images that are mirrored left to right.
        hue, saturation, value: largest change of each as a share.
    """

    mosaic: float = 0.5
    degrees: float = 2.0
    translate: float = 0.05
    scale: float = 0.2
    shear: float = 0.6
    mirror: float = 0.5
    hue: float = 0.0138
    saturation: float = 0.678
    value: float = 0.36

    def __post_init__(self) -> None:
        for name in ("mosaic", "mirror"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"a share of {getattr(self, name):g} as {name}", allowed="0 to 1")


NONE = DetectionAugment(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass
class Cut:
    """Boxes of which affine maps left a part in the image, and those of them that were dropped as too small a part.
    Those wholly outside, as most of a mosaic's are, leave nothing that a network could be wrong about."""

    seen: int = 0
    dropped: int = 0
    share: float = field(init=False, default=0.0)

    def count(self, kept: NDArray[np.bool_], sides: NDArray[np.float64]) -> None:
        """Add one image's boxes; sides [n, 2] after cutting."""
        inside = (sides > 0).all(1)
        self.seen += int(inside.sum())
        self.dropped += int((inside & ~kept).sum())
        self.share = self.dropped / max(self.seen, 1)


def mosaic(parts: Sequence[Labelled], size: tuple[int, int], centre: tuple[int, int]) -> Labelled:
    """Four images around a point of a grey canvas of twice the size: the first lies above left of it with its lower
    right corner there, the others above right, below left, below right.

    Args:
        size: (height, width); the canvas has twice that.
        centre: (x, y) on the canvas.
    """
    height, width = 2 * size[0], 2 * size[1]
    canvas = np.full((height, width, 3), GREY, np.uint8)
    cx, cy = centre
    boxes, classes = [], []
    for place, part in enumerate(parts):
        h, w = part.image.shape[:2]
        left, top = (cx - w if place % 2 == 0 else cx), (cy - h if place < 2 else cy)
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + w, width), min(top + h, height)
        if x2 > x1 and y2 > y1:
            canvas[y1:y2, x1:x2] = part.image[y1 - top : y2 - top, x1 - left : x2 - left]
        boxes.append(part.boxes + np.array([left, top, left, top], np.float64))
        classes.append(part.classes)
    return Labelled(canvas, np.concatenate(boxes), np.concatenate(classes))


def affine_matrix(rng: np.random.Generator, options: DetectionAugment, source: tuple[int, int], size: tuple[int, int]):  # type: ignore[no-untyped-def]  # a float64 matrix
    """A random map [3, 3] from source pixels to those of an image of `size`; both (height, width); centres meet."""
    angle = math.radians(rng.uniform(-options.degrees, options.degrees))
    grow = rng.uniform(1 - options.scale, 1 + options.scale)
    shear = [math.tan(math.radians(rng.uniform(-options.shear, options.shear))) for _ in range(2)]
    shift = [rng.uniform(-options.translate, options.translate) * side for side in (size[1], size[0])]
    to_centre = np.array([[1, 0, -source[1] / 2], [0, 1, -source[0] / 2], [0, 0, 1]])
    cos, sin = grow * math.cos(angle), grow * math.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    bend = np.array([[1, shear[0], 0], [shear[1], 1, 0], [0, 0, 1]])
    back = np.array([[1, 0, size[1] / 2 + shift[0]], [0, 1, size[0] / 2 + shift[1]], [0, 0, 1]])
    return back @ bend @ turn @ to_centre


def warp(labelled: Labelled, matrix: NDArray[np.float64], size: tuple[int, int], cut: Cut | None = None) -> Labelled:
    """The image under an affine map, grey outside; boxes around their corners' images, cut to the image."""
    cv2 = require("cv2", "augment images")
    image = cv2.warpAffine(labelled.image, matrix[:2], (size[1], size[0]), borderValue=(GREY,) * 3)
    moved = moved_boxes(labelled.boxes, matrix)
    clipped = np.clip(moved, 0, np.array([size[1], size[0]] * 2, np.float64))
    kept = enough_left(moved, clipped)
    if cut is not None:
        cut.count(kept, clipped[:, 2:] - clipped[:, :2])
    return Labelled(image, clipped[kept], labelled.classes[kept])


def moved_boxes(boxes: Boxes, matrix: NDArray[np.float64]) -> Boxes:
    """The boxes around the images of the four corners of each."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    points = corners @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([points.min(1), points.max(1)], 1)


def enough_left(whole: Boxes, cut: Boxes) -> NDArray[np.bool_]:
    """Boxes of more than 4 pixels in both directions, more than 20% of their area, and an aspect below 10."""
    sides, before = cut[:, 2:] - cut[:, :2], whole[:, 2:] - whole[:, :2]
    area = sides.prod(1) / np.maximum(before.prod(1), 1e-9)
    aspect = sides.max(1, initial=0) / np.maximum(sides.min(1, initial=np.inf), 1e-9)
    kept: NDArray[np.bool_] = (sides > LEAST_SIDE).all(1) & (area > LEAST_SHARE) & (aspect < MOST_ASPECT)
    return kept


def mirrored(labelled: Labelled) -> Labelled:
    """Left to right."""
    width = labelled.image.shape[1]
    boxes = labelled.boxes.copy()
    boxes[:, [0, 2]] = width - labelled.boxes[:, [2, 0]]
    return Labelled(np.ascontiguousarray(labelled.image[:, ::-1]), boxes, labelled.classes)


def recoloured(image: Pixels, rng: np.random.Generator, options: DetectionAugment) -> Pixels:
    """Hue, saturation and value each times a random factor."""
    cv2 = require("cv2", "augment images")
    factors = 1 + rng.uniform(-1, 1, 3) * (options.hue, options.saturation, options.value)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32) * factors.astype(np.float32)
    hsv[..., 0] %= 180
    changed: Pixels = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return changed


def augmented(
    load: Callable[[int], Labelled],
    number: int,
    count: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    options: DetectionAugment,
    cut: Cut | None = None,
) -> Labelled:
    """Image `number` of `count`, augmented, of `size` (height, width).

    Args:
        load: number -> an image that already has `size`.
    """
    if rng.random() < options.mosaic:
        parts = [load(number), *(load(int(rng.integers(count))) for _ in range(3))]
        centre = (
            int(rng.integers(size[1] // 2, 3 * size[1] // 2 + 1)),
            int(rng.integers(size[0] // 2, 3 * size[0] // 2 + 1)),
        )
        found = mosaic(parts, size, centre)
        found = warp(found, affine_matrix(rng, options, found.image.shape[:2], size), size, cut)
    else:
        found = load(number)
        if options.degrees or options.translate or options.scale or options.shear:
            found = warp(found, affine_matrix(rng, options, size, size), size, cut)
    if rng.random() < options.mirror:
        found = mirrored(found)
    if options.hue or options.saturation or options.value:
        found = found._replace(image=recoloured(found.image, rng, options))
    return found
