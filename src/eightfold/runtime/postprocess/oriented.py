"""Turned boxes: YOLOv8-obb and YOLO11-obb."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.runtime.postprocess.instances import YoloWithMore
from eightfold.runtime.postprocess.object_results import OrientedBoxes
from eightfold.runtime.postprocess.results import Detections, label_of

EPSILON = 1e-7
# Corners of a box of half sides 1, in turn.
SIGNS = np.array(((1, 1), (1, -1), (-1, -1), (-1, 1)), np.float64)


class YoloOriented(YoloWithMore):
    """`yolo-oriented`: an angle in radians behind the classes; suppression by the overlap of Gaussians."""

    def more(self, outputs: Arrays) -> int:
        return 1

    def _image(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        ranked = self.candidates(outputs, placement.tensor).best(self.max_candidates)
        boxes = np.concatenate((_centres(ranked.boxes), self.further(outputs, ranked)), axis=1).astype(np.float64)
        which = np.arange(len(boxes))
        if self.nms:
            which = oriented_nms(boxes, None if self.agnostic else ranked.classes, self.iou_threshold)
        which = which[: self.max_detections]
        kept, corners = ranked.take(which), corners_of(boxes[which])
        (scale_y, scale_x), (top, left) = placement.scale, placement.offset
        corners = (corners - (left, top)) / (scale_x, scale_y)
        limits = placement.source[::-1]
        low, high = np.clip(corners.min(axis=1), 0, limits), np.clip(corners.max(axis=1), 0, limits)
        upright = np.concatenate((low, high), axis=1).astype(np.float32)
        labels = tuple(label_of(self.labels, index) for index in kept.classes.tolist())
        return OrientedBoxes(upright, kept.scores, kept.classes, labels, corners.astype(np.float32))


def _centres(boxes: Array) -> NDArray[np.float64]:
    """(n, 4) corners -> centre and size."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return np.concatenate(((low + high) / 2, high - low), axis=1)


def corners_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 5) of centre, size and angle -> (n, 4, 2)."""
    cosine, sine = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    turn = np.stack((np.stack((cosine, -sine), 1), np.stack((sine, cosine), 1)), 1)
    halves = SIGNS[None] * boxes[:, None, 2:4] / 2
    corners: NDArray[np.float64] = np.einsum("nij,nkj->nki", turn, halves) + boxes[:, None, :2]
    return corners


def oriented_nms(boxes: NDArray[np.float64], classes: NDArray[np.int64] | None, threshold: float) -> NDArray[np.intp]:
    """Greedy: a box goes where `oriented_overlap` with a kept one of its class is above the threshold; best first."""
    overlaps = oriented_overlap(boxes, boxes) > threshold
    if classes is not None:
        overlaps &= classes[:, None] == classes[None]
    alive = np.ones(len(boxes), np.bool_)
    for index in range(len(boxes)):
        if alive[index]:
            alive[index + 1 :] &= ~overlaps[index, index + 1 :]
    return np.flatnonzero(alive)


def oriented_overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 5) and (m, 5) -> (n, m): 1 - Hellinger distance of the boxes as Gaussians, in 0..1.

    Llerena et al., Gaussian Bounding Boxes and Probabilistic Intersection-over-Union, 2021 (ProbIoU).
    """
    (x1, y1), (a1, b1, c1) = first[:, :2].T[..., None], _covariance(first)[..., None]
    (x2, y2), (a2, b2, c2) = second[:, :2].T[:, None], _covariance(second)[:, None]
    a, b, c, x, y = a1 + a2, b1 + b2, c1 + c2, x1 - x2, y1 - y2
    determinant = a * b - c * c
    shape = (a * y**2 + b * x**2) / (determinant + EPSILON) / 4 - (c * x * y) / (determinant + EPSILON) / 2
    sizes = np.sqrt(np.clip(a1 * b1 - c1**2, 0, None) * np.clip(a2 * b2 - c2**2, 0, None))
    distance = np.clip(shape + np.log(determinant / (4 * sizes + EPSILON) + EPSILON) / 2, EPSILON, 100)
    found: NDArray[np.float64] = 1 - np.sqrt(1 - np.exp(-distance) + EPSILON)
    return found


def _covariance(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, n): variance along x and y, and covariance, of a uniform box."""
    wide, high = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cosine, sine = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return np.stack(
        (wide * cosine**2 + high * sine**2, wide * sine**2 + high * cosine**2, (wide - high) * cosine * sine)
    )
