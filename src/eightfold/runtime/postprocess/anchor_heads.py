"""Detectors with a head over all levels: SSD, RetinaNet and FCOS, as torchvision decodes them."""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from eightfold.arrays import Array, Arrays
from eightfold.errors import BundleError
from eightfold.runtime.postprocess.anchors import Grid, default_boxes, grid_anchors
from eightfold.runtime.postprocess.arithmetic import logit, sigmoid, softmax
from eightfold.runtime.postprocess.decoder import the_output, wrong_shape
from eightfold.runtime.postprocess.detect import Candidates, Detector, box_candidates

# exp of more than this would make a box larger than any image; the same constant as torchvision's.
LARGEST_LOG = np.float32(np.log(1000.0 / 16))
SLACK = 1e-3


class AnchorHead(Detector):
    """Common part of the three heads: raw class scores (N, C) and deltas (N, 4) relative to N reference boxes."""

    grids: tuple[Grid, ...]
    multi_label: Literal[True] = True
    scores_output: str = "cls_logits"
    boxes_output: str = "bbox_regression"

    @abstractmethod
    def anchors(self, size: tuple[int, int]) -> Array:
        """(N, 4) corners in tensor pixels."""

    def _heads(self, outputs: Arrays, size: tuple[int, int]) -> tuple[Array, Array, Array]:
        scores, deltas = the_output(outputs, self.scores_output), the_output(outputs, self.boxes_output)
        anchors = _cached_anchors(self, size)
        if scores.ndim != 2 or deltas.shape != (len(scores), 4):
            raise wrong_shape(self.boxes_output, deltas, f"({len(scores)}, 4) beside scores (N, classes)")
        if len(anchors) != len(scores):
            raise BundleError(f"the options give {len(anchors)} anchors", allowed=f"{len(scores)}, as the scores")
        return scores, deltas, anchors

    def _by_level(self, found: Candidates, shape: tuple[int, ...], limit: int) -> Candidates:
        """The best of each level. `shape`: of the scores, (N, C)."""
        cells = np.array([height * width for height, width in self.grids])
        ends = np.cumsum(cells) * (shape[0] // cells.sum()) * shape[1]
        levels = np.searchsorted(ends, found.numbers, side="right")
        return Candidates.joined([found.take(levels == level).best(limit) for level in range(len(self.grids))])


@lru_cache(maxsize=16)
def _cached_anchors(head: AnchorHead, size: tuple[int, int]) -> Array:
    return head.anchors(size)


class Ssd(AnchorHead):
    """`ssd`: class 0 is background (Liu et al., ECCV 2016)."""

    score_threshold: float = 0.01
    max_detections: int = Field(default=200, ge=1)
    class_candidates: int = Field(default=400, ge=1)
    aspect_ratios: tuple[tuple[float, ...], ...]
    scales: tuple[float, ...]
    steps: tuple[float, ...] | None = None
    clip: bool = True
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)

    def anchors(self, size: tuple[int, int]) -> Array:
        return default_boxes(self.grids, self.scales, self.aspect_ratios, self.steps, self.clip, size)

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        logits, deltas, anchors = self._heads(outputs, size)
        scores = softmax(logits)[:, 1:]
        locations, classes = np.nonzero(scores > self.score_threshold)
        boxes = boxes_from_deltas(deltas[locations], anchors[locations], self.weights, size)
        found = box_candidates(boxes, scores[locations, classes], classes, locations, scores.shape[1])
        kept = [found.take(found.classes == index).best(self.class_candidates) for index in np.unique(found.classes)]
        return Candidates.joined(kept) if kept else found


class RetinaNet(AnchorHead):
    """`retinanet` (Lin et al., ICCV 2017)."""

    score_threshold: float = 0.05
    iou_threshold: float = Field(default=0.5, ge=0, le=1)
    level_candidates: int = Field(default=1000, ge=1)
    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def anchors(self, size: tuple[int, int]) -> Array:
        return grid_anchors(self.grids, self.sizes, self.aspect_ratios, size)

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        logits, deltas, anchors = self._heads(outputs, size)
        locations, classes = np.nonzero(logits > logit(self.score_threshold) - SLACK)
        scores = sigmoid(logits[locations, classes])
        passed = scores > self.score_threshold
        locations, classes, scores = locations[passed], classes[passed], scores[passed]
        boxes = boxes_from_deltas(deltas[locations], anchors[locations], self.weights, size)
        found = box_candidates(boxes, scores, classes, locations, logits.shape[1])
        return self._by_level(found, logits.shape, self.level_candidates)


class Fcos(AnchorHead):
    """`fcos`: distances from the centre, scores weighed by centre-ness (Tian et al., ICCV 2019)."""

    score_threshold: float = 0.2
    iou_threshold: float = Field(default=0.6, ge=0, le=1)
    max_detections: int = Field(default=100, ge=1)
    level_candidates: int = Field(default=1000, ge=1)
    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...] | None = None
    centerness_output: str = "bbox_ctrness"

    def anchors(self, size: tuple[int, int]) -> Array:
        return grid_anchors(self.grids, self.sizes, self.aspect_ratios or ((1.0,),) * len(self.grids), size)

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        logits, deltas, anchors = self._heads(outputs, size)
        centerness = sigmoid(the_output(outputs, self.centerness_output).reshape(-1))
        # The square root of a product of two numbers below 1: neither may be below the threshold squared.
        locations, classes = np.nonzero(logits > logit(self.score_threshold**2) - SLACK)
        scores = np.sqrt(sigmoid(logits[locations, classes]) * centerness[locations])
        passed = scores > self.score_threshold
        locations, classes, scores = locations[passed], classes[passed], scores[passed]
        boxes = _boxes_from_distances(deltas[locations], anchors[locations], size)
        found = box_candidates(boxes, scores, classes, locations, logits.shape[1])
        return self._by_level(found, logits.shape, self.level_candidates)


def boxes_from_deltas(deltas: Array, anchors: Array, weights: tuple[float, ...], size: tuple[int, int]) -> Array:
    """Faster R-CNN's parametrization (Ren et al., NIPS 2015, eq. 2), clipped to the tensor: (n, 4) corners."""
    extents = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + np.float32(0.5) * extents
    scaled = deltas / np.array(weights, np.float32)
    centres = scaled[:, :2] * extents + centres
    halves = np.exp(np.minimum(scaled[:, 2:], LARGEST_LOG)) * extents / 2
    return _clipped(np.concatenate((centres - halves, centres + halves), axis=1), size)


def _boxes_from_distances(distances: Array, anchors: Array, size: tuple[int, int]) -> Array:
    extents = anchors[:, 2:] - anchors[:, :2]
    centres = np.float32(0.5) * (anchors[:, :2] + anchors[:, 2:])
    corners = (centres - distances[:, :2] * extents, centres + distances[:, 2:] * extents)
    return _clipped(np.concatenate(corners, axis=1), size)


def _clipped(boxes: Array, size: tuple[int, int]) -> Array:
    return np.clip(boxes, 0, np.array((size[1], size[0]) * 2, np.float32))
