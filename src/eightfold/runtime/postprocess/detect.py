"""Common part of all detectors: from candidates to detections in image coordinates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.runtime.bundle.manifest import TaskKind
from eightfold.runtime.postprocess.decoder import Decoder, as_float32
from eightfold.runtime.postprocess.nms import nms, soft_nms
from eightfold.runtime.postprocess.results import Detections, label_of


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes that passed the threshold, in any order.

    Attributes:
        boxes: (n, 4) float32, x1, y1, x2, y2 in tensor pixels.
        scores: (n,) float32.
        classes: (n,) int64.
        numbers: (n,) int64; the lower goes first among equal scores.
    """

    boxes: Array
    scores: Array
    classes: Array
    numbers: Array

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, which: NDArray[np.integer[Any] | np.bool_] | slice) -> Candidates:
        """The candidates of these indices."""
        return Candidates(self.boxes[which], self.scores[which], self.classes[which], self.numbers[which])

    def best(self, count: int) -> Candidates:
        """The best `count`, best first."""
        likely = self
        if len(self) > 4 * count:  # sort only what can be among them
            likely = self.take(self.scores >= np.partition(self.scores, -count)[-count])
        return likely.take(np.lexsort((likely.numbers, -likely.scores))[:count])

    @staticmethod
    def joined(parts: Sequence[Candidates]) -> Candidates:
        """All candidates of several parts."""
        if len(parts) == 1:
            return parts[0]
        return Candidates(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in Candidates.__dataclass_fields__)
        )


class Detector(Decoder):
    """A decoder whose candidates go through threshold, limits and NMS."""

    kind: ClassVar[TaskKind] = "detect"
    score_threshold: float = 0.25
    iou_threshold: float = Field(default=0.45, ge=0, le=1)
    max_candidates: int = Field(default=3000, ge=1)
    max_detections: int = Field(default=300, ge=1)
    multi_label: bool = False
    agnostic: bool = False
    nms: bool = True
    soft_sigma: float = Field(default=0.0, ge=0)

    @abstractmethod
    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        """The candidates of one image, whose score is above the threshold.

        Args:
            outputs: name -> array without batch axis.
            size: height and width of the tensor.
        """

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Detections]:
        return [self._image(_row(outputs, index), placement) for index, placement in enumerate(placements)]

    def _image(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        return self.in_image(self.kept(outputs, placement.tensor), placement)

    def kept(self, outputs: Mapping[str, Array], size: tuple[int, int]) -> Candidates:
        """The candidates that pass threshold, limits and NMS, best first, in tensor pixels; `size` is the tensor's."""
        return self._suppressed(self.candidates(outputs, size).best(self.max_candidates))

    def in_image(self, kept: Candidates, placement: Placement) -> Detections:
        """Detections in image pixels."""
        boxes = placement.boxes_to_image(kept.boxes).astype(np.float32)
        labels = tuple(label_of(self.labels, index) for index in kept.classes.tolist())
        return Detections(boxes, kept.scores, kept.classes, labels)

    def _suppressed(self, ranked: Candidates) -> Candidates:
        if not self.nms or not len(ranked):
            return ranked.take(slice(self.max_detections))
        classes = None if self.agnostic else ranked.classes
        if not self.soft_sigma:
            return ranked.take(nms(ranked.boxes, classes, self.iou_threshold, self.max_detections))
        which, scores = soft_nms(
            ranked.boxes,
            ranked.scores,
            classes,
            sigma=self.soft_sigma,
            threshold=self.score_threshold,
            limit=self.max_detections,
        )
        return Candidates(ranked.boxes[which], scores, ranked.classes[which], ranked.numbers[which])


def _row(outputs: Arrays, index: int) -> dict[str, Array]:
    return {name: as_float32(array[index]) for name, array in outputs.items()}


def above(values: Array, threshold: float, *, multi_label: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Locations and classes whose value is above a threshold.

    Args:
        values: (classes, locations).
        threshold: strict.
        multi_label: every class of a location, instead of its best one (the first among equals).
    """
    locations = np.flatnonzero(values.max(axis=0) > threshold)
    if not multi_label:
        return locations, values[:, locations].argmax(axis=0)
    which, classes = np.nonzero(threshold < values[:, locations].T)
    return locations[which], classes


def box_candidates(boxes: Array, scores: Array, classes: Array, locations: Array, class_count: int) -> Candidates:
    """Candidates of given boxes, with numbers that identify location and class."""
    numbers = locations.astype(np.int64) * class_count + classes
    return Candidates(boxes.astype(np.float32, copy=False), scores, classes.astype(np.int64), numbers)
