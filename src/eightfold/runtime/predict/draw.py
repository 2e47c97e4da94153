"""Answers drawn onto pictures, with OpenCV."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightfold.extras import require
from eightfold.runtime.postprocess.object_results import InstanceMasks, Keypoints, OrientedBoxes
from eightfold.runtime.postprocess.picture_results import Depth, Picture
from eightfold.runtime.postprocess.results import Classification, Detections, Matte, Result, Segmentation

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
OVERLAY = np.float32(0.5)
GREEN: Colour = (0, 177, 64)
LEGEND_LINES = 8
VISIBLE = 0.5


def draw(image: NDArray[np.unsignedinteger[Any]], result: Result) -> Pixels:
    """A copy of an image with an answer drawn on it.

    Args:
        image: (H, W, 3) uint8 RGB; of images of other channels or types, what a person can see of them is drawn on.
        result: boxes and labels for detections, with their masks, points or corners; coloured areas and the largest
            classes' names for a segmentation; the likeliest classes in a corner for a classification; the foreground on
            green for a matte; near in light for a depth map; a picture as it is; anything else leaves the image as it
            is.
    """
    if isinstance(result, Picture):
        return result.pixels.copy()
    canvas = _visible(image)
    if isinstance(result, Classification):
        _draw_classes(canvas, result)
    elif isinstance(result, Depth):
        return np.repeat(result.grey()[..., None], 3, axis=2)
    elif isinstance(result, Detections):
        _draw_boxes(canvas, result)
    elif isinstance(result, Segmentation):
        canvas = _overlaid(canvas, result)
        _draw_legend(canvas, result)
    elif isinstance(result, Matte):
        return result.composite(canvas, np.array(GREEN, np.uint8))
    return canvas


def _visible(image: NDArray[np.unsignedinteger[Any]]) -> Pixels:
    """A copy as (H, W, 3) uint8: the first three channels, or the first one where there are fewer; 16 bits are scaled
    by the largest value."""
    pixels = image if image.ndim == 3 else image[..., None]
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if shown.dtype != np.uint8:
        shown = (shown * (255 / max(int(shown.max(initial=0)), 1))).astype(np.uint8)
    visible: Pixels = np.array(shown, np.uint8, order="C")
    return visible


@lru_cache(maxsize=1024)
def colour_of(index: int) -> Colour:
    """A colour for a class, far from those of its neighbours: hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.61803399 % 1, 0.8, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_classes(canvas: Pixels, result: Classification) -> None:
    _draw_lines(canvas, [(f"{each.label} {each.probability:.0%}", each.index) for each in result.top[:3]])


def _draw_legend(canvas: Pixels, result: Segmentation) -> None:
    shares = list(result.shares().items())[:LEGEND_LINES]
    known = [(label, share) for label, share in shares if label in result.labels]
    _draw_lines(canvas, [(f"{label} {share:.0%}", result.labels.index(label)) for label, share in known])


def _draw_lines(canvas: Pixels, lines: list[tuple[str, int]]) -> None:
    """Texts in the top left corner, each on its class's colour."""
    pen = _Pen(canvas)
    for number, (text, index) in enumerate(lines):
        pen.text(text, (0, number * pen.line_height), colour_of(index))


def _draw_boxes(canvas: Pixels, result: Detections) -> None:
    if isinstance(result, InstanceMasks):
        _overlay_masks(canvas, result)
    pen = _Pen(canvas)
    # The best last, so that it lies on top.
    for at in reversed(range(len(result))):
        x1, y1, x2, y2 = np.rint(result.boxes[at]).astype(int).tolist()
        colour = colour_of(int(result.classes[at]))
        if isinstance(result, OrientedBoxes):
            pen.polygon(np.rint(result.corners[at]).astype(np.int32), colour)
        else:
            pen.box((x1, y1), (x2, y2), colour)
        if isinstance(result, Keypoints):
            for x, y, visible in result.keypoints[at].tolist():
                if visible > VISIBLE:
                    pen.point((round(x), round(y)), colour)
        pen.text(f"{result.labels[at]} {result.scores[at]:.2f}", (x1, max(0, y1 - pen.line_height)), colour)


def _overlay_masks(canvas: Pixels, result: InstanceMasks) -> None:
    for at in reversed(range(len(result))):
        (left, top), mask = result.origins[at].tolist(), result.masks[at]
        area = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
        colour = np.array(colour_of(int(result.classes[at])), np.float32)
        area[mask] = (area[mask] * (1 - OVERLAY) + colour * OVERLAY).astype(np.uint8)


def _overlaid(canvas: Pixels, result: Segmentation) -> Pixels:
    palette = np.array([colour_of(index) for index in range(255)] + [(0, 0, 0)], np.float32)
    mixed = canvas * (1 - OVERLAY) + palette[result.classes] * OVERLAY
    return np.asarray(mixed, np.uint8)


class _Pen:
    """Lines and letters whose size follows the image's."""

    def __init__(self, canvas: Pixels) -> None:
        self._cv2: Any = require("cv2", "draw on images")
        self._canvas = canvas
        self._scale = max(0.3, min(canvas.shape[:2]) / 900)
        self._width = max(1, round(2 * self._scale))
        (_, height), base = self._cv2.getTextSize("Ag", self._cv2.FONT_HERSHEY_SIMPLEX, self._scale, self._width)
        self._height, self._base = height, base
        self.line_height = height + base + 2

    def box(self, corner: tuple[int, int], opposite: tuple[int, int], colour: Colour) -> None:
        self._cv2.rectangle(self._canvas, corner, opposite, colour, self._width)

    def polygon(self, corners: NDArray[np.int32], colour: Colour) -> None:
        self._cv2.polylines(self._canvas, [corners], True, colour, self._width)

    def point(self, centre: tuple[int, int], colour: Colour) -> None:
        self._cv2.circle(self._canvas, centre, 2 * self._width, colour, self._cv2.FILLED)

    def text(self, text: str, corner: tuple[int, int], colour: Colour) -> None:
        """Black or white letters on the colour, `corner` being the top left, or as near to it as the image has room."""
        cv2, (x, y) = self._cv2, corner
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, self._scale, self._width)
        x = max(0, min(x, self._canvas.shape[1] - width))
        cv2.rectangle(self._canvas, (x, y), (x + width, y + self.line_height), colour, cv2.FILLED)
        letters = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
        place = (x, y + self._height + 1)
        cv2.putText(self._canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, self._scale, letters, self._width, cv2.LINE_AA)
