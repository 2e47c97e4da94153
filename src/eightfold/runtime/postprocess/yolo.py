"""The YOLO family: raw heads with anchors or distributions, decoded boxes, and end-to-end heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from eightfold.arrays import Array, Arrays
from eightfold.errors import BundleError
from eightfold.runtime.postprocess.arithmetic import logit, sigmoid, softmax
from eightfold.runtime.postprocess.decoder import the_output, wrong_shape
from eightfold.runtime.postprocess.detect import Candidates, Detector, above, box_candidates

# A filter on logits may let a little too much through: rounding of the sigmoid decides at the exact threshold.
SLACK = 1e-3


class YoloBoxes(Detector):
    """`yolo-boxes`: one output of decoded boxes and class probabilities, as ultralytics exports it."""

    channels_last: bool = False
    objectness: bool = False
    normalized: bool = False

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        output = the_output(outputs)
        rows = output.T if self.channels_last else output
        first = 5 if self.objectness else 4
        if output.ndim != 2 or len(rows) <= first:
            raise wrong_shape("of the detector", output, f"({first} + classes, N), or turned round with channels_last")
        # A product with an objectness of at most 1 never exceeds the class score alone.
        locations, classes = above(rows[first:], self.score_threshold, multi_label=self.multi_label)
        scores = rows[first + classes, locations]
        if self.objectness:
            scores = scores * rows[4, locations]
            passed = scores > self.score_threshold
            locations, classes, scores = locations[passed], classes[passed], scores[passed]
        boxes = _corners(*rows[:4, locations]) * self._scale(size)
        return box_candidates(boxes, scores, classes, locations, len(rows) - first)

    def _scale(self, size: tuple[int, int]) -> Array:
        return np.array((size[1], size[0]) * 2 if self.normalized else (1, 1, 1, 1), np.float32)


class YoloDfl(Detector):
    """`yolo-dfl`: raw maps, each box side a distribution over `reg_max` bins (Li et al., NeurIPS 2020)."""

    reg_max: int = Field(default=16, ge=1)

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        parts, start = [], 0
        for name, output in outputs.items():
            if output.ndim != 3 or len(output) <= 4 * self.reg_max:
                raise wrong_shape(name, output, f"(4 * {self.reg_max} + classes, H, W)")
            parts.append(self._scale(output, start, size))
            start += output.shape[1] * output.shape[2]
        return Candidates.joined(parts)

    def _scale(self, output: Array, start: int, size: tuple[int, int]) -> Candidates:
        _, height, width = output.shape
        rows = output.reshape(len(output), -1)
        logits = rows[4 * self.reg_max :]
        cells, classes = above(logits, logit(self.score_threshold) - SLACK, multi_label=self.multi_label)
        scores = sigmoid(logits[classes, cells])
        passed = scores > self.score_threshold
        cells, classes, scores = cells[passed], classes[passed], scores[passed]
        left, top, right, bottom = self._distances(rows[: 4 * self.reg_max, cells])
        x, y = (cells % width).astype(np.float32) + 0.5, (cells // width).astype(np.float32) + 0.5
        strides = np.array((size[1] / width, size[0] / height) * 2, np.float32)
        boxes = np.stack((x - left, y - top, x + right, y + bottom), axis=1) * strides
        return box_candidates(boxes, scores, classes, start + cells, len(logits))

    def _distances(self, rows: Array) -> Array:
        """(4 * reg_max, n) -> (4, n), in strides."""
        if self.reg_max == 1:
            return rows
        bins = softmax(rows.reshape(4, self.reg_max, -1), axis=1)
        distances: Array = np.einsum("sbn,b->sn", bins, np.arange(self.reg_max, dtype=np.float32))
        return distances


class YoloAnchors(Detector):
    """`yolo-anchors`: raw maps of YOLOv3, YOLOv4 and YOLOv5 (Redmon & Farhadi, 2018; Bochkovskiy et al., 2020)."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]
    box: Literal["exp", "sigmoid"] = "exp"
    scale_xy: float | tuple[float, ...] = 1.0
    class_scores: Literal["sigmoid", "softmax"] = "sigmoid"

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        if len(outputs) != len(self.anchors):
            raise BundleError(f"anchors for {len(self.anchors)} scales", allowed=f"{len(outputs)}, one per output")
        parts, start = [], 0
        for at, (name, output) in enumerate(outputs.items()):
            anchors = np.array(self.anchors[at], np.float32)
            if output.ndim != 3 or len(output) % len(anchors) or len(output) < 6 * len(anchors):
                raise wrong_shape(name, output, f"({len(anchors)} * (5 + classes), H, W)")
            parts.append(self._scale(output, anchors, self._factor(at), start, size))
            start += len(anchors) * output.shape[1] * output.shape[2]
        return Candidates.joined(parts)

    def _factor(self, at: int) -> float:
        return self.scale_xy[at] if isinstance(self.scale_xy, Sequence) else self.scale_xy

    def _scale(self, output: Array, anchors: Array, factor: float, start: int, size: tuple[int, int]) -> Candidates:
        _, height, width = output.shape
        rows = (
            output.reshape(len(anchors), -1, height * width)
            .transpose(1, 0, 2)
            .reshape(-1, len(anchors) * height * width)
        )
        locations, classes, scores = self._scored(rows)
        cells = locations % (height * width)
        cell = np.stack((cells % width, cells // width)).astype(np.float32)
        tensor = np.array([[size[1] / width], [size[0] / height]], np.float32)
        centre = (sigmoid(rows[:2, locations]) * np.float32(factor) - np.float32((factor - 1) / 2) + cell) * tensor
        extent = self._extent(rows[2:4, locations]) * anchors[locations // (height * width)].T
        return box_candidates(_corners(*centre, *extent), scores, classes, start + locations, len(rows) - 5)

    def _scored(self, rows: Array) -> tuple[Array, Array, Array]:
        """Neither factor alone can be below the threshold when their product is above it: look at objectness first."""
        limit = logit(self.score_threshold) - SLACK
        likely = np.flatnonzero(rows[4] > limit)
        values = rows[5:, likely]
        if self.class_scores == "softmax":
            values, limit = softmax(values, axis=0), self.score_threshold
        which, classes = above(values, limit, multi_label=self.multi_label)
        own = values[classes, which]
        scores = sigmoid(rows[4, likely[which]]) * (own if self.class_scores == "softmax" else sigmoid(own))
        passed = scores > self.score_threshold
        return likely[which[passed]], classes[passed], scores[passed]

    def _extent(self, values: Array) -> Array:
        return np.exp(values) if self.box == "exp" else np.square(2 * sigmoid(values))


class YoloGrid(Detector):
    """`yolo-grid`: class probabilities of each cell, then objectness and boxes (Redmon et al., YOLO, CVPR 2016)."""

    side: int = Field(ge=1)
    boxes: int = Field(ge=1)
    classes: int = Field(ge=1)
    square: bool = True

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        output, cells = the_output(outputs), self.side * self.side
        count = cells * self.boxes
        if output.size != cells * self.classes + 5 * count:
            wanted = f"({self.side} * {self.side} * ({self.classes} + {self.boxes} * 5))"
            raise wrong_shape("of the detector", output, wanted)
        flat = output.ravel()
        probabilities = flat[: cells * self.classes].reshape(cells, self.classes)
        certain = flat[cells * self.classes :][:count]
        scores = (certain[:, None] * probabilities.repeat(self.boxes, axis=0)).T
        locations, classes = above(scores, self.score_threshold, multi_label=self.multi_label)
        rows = flat[cells * self.classes + count :].reshape(count, 4)[locations].T
        cell = locations // self.boxes
        place = np.stack((cell % self.side, cell // self.side)).astype(np.float32)
        tensor = np.array([[size[1]], [size[0]]], np.float32)
        centre = (rows[:2] + place) / np.float32(self.side) * tensor
        extent = (np.square(rows[2:]) if self.square else rows[2:]) * tensor
        boxes = _corners(*centre, *extent)
        return box_candidates(boxes, scores[classes, locations], classes, locations, self.classes)


class EndToEnd(Detector):
    """`end-to-end`: boxes that need no suppression (Wang et al., YOLOv10, NeurIPS 2024)."""

    nms: Literal[False] = False

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        rows = the_output(outputs)
        if rows.ndim != 2 or rows.shape[1] != 6:
            raise wrong_shape("of the detector", rows, "(K, 6)")
        numbers = np.flatnonzero(rows[:, 4] > self.score_threshold)
        kept = rows[numbers]
        return Candidates(kept[:, :4], kept[:, 4], np.rint(kept[:, 5]).astype(np.int64), numbers)


def _corners(cx: Array, cy: Array, width: Array, height: Array) -> Array:
    """(n,) each -> (n, 4)."""
    half_width, half_height = width / 2, height / 2
    return np.stack((cx - half_width, cy - half_height, cx + half_width, cy + half_height), axis=1)
