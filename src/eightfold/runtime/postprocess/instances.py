"""Detections with masks from prototypes, or with keypoints: YOLOv5-seg, YOLOv8-seg and -pose, YOLO11."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.errors import BundleError
from eightfold.runtime.postprocess.detect import Candidates
from eightfold.runtime.postprocess.object_results import InstanceMasks, Keypoints
from eightfold.runtime.postprocess.results import Detections
from eightfold.runtime.postprocess.yolo import YoloBoxes


class YoloWithMore(YoloBoxes):
    """Rows of `yolo-boxes` with further values behind the classes."""

    def more(self, outputs: Arrays) -> int:
        """The number of further values."""
        raise NotImplementedError

    def rows(self, outputs: Arrays) -> Array:
        """(4 + classes + further, N)."""
        flat = [array for array in outputs.values() if array.ndim == 2]
        if len(flat) != 1:
            raise BundleError(
                f"{len(flat)} outputs (values, N) for one image", allowed="one", remedy="choose another decoder"
            )
        return flat[0].T if self.channels_last else flat[0]

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        rows, more = self.rows(outputs), self.more(outputs)
        plain = rows[: len(rows) - more]
        return super().candidates({"rows": plain.T if self.channels_last else plain}, size)

    def further(self, outputs: Arrays, kept: Candidates) -> Array:
        """(n, further) of the kept candidates."""
        rows, more = self.rows(outputs), self.more(outputs)
        classes = len(rows) - more - 4 - self.objectness
        return rows[len(rows) - more :, kept.numbers // classes].T


class YoloMasks(YoloWithMore):
    """`yolo-masks`: coefficients behind the classes, and prototypes (Bolya et al., YOLACT, ICCV 2019)."""

    def more(self, outputs: Arrays) -> int:
        return len(self._prototypes(outputs))

    def _image(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        kept = self.kept(outputs, placement.tensor)
        found = self.in_image(kept, placement)
        prototypes = self._prototypes(outputs)
        logits = np.tensordot(self.further(outputs, kept), prototypes, axes=1)
        first = np.ceil(found.boxes[:, :2]).astype(np.int64)
        end = np.ceil(found.boxes[:, 2:]).astype(np.int64)
        parts = zip(logits, first.tolist(), end.tolist(), strict=True)
        masks = tuple(
            _mask(each, (left, top), (right, bottom), placement) for each, (left, top), (right, bottom) in parts
        )
        return InstanceMasks(found.boxes, found.scores, found.classes, found.labels, masks, first)

    def _prototypes(self, outputs: Arrays) -> Array:
        maps = [array for array in outputs.values() if array.ndim == 3]
        if len(maps) != 1:
            raise BundleError(
                f"{len(maps)} outputs (prototypes, H, W) for one image", allowed="one", remedy="choose another decoder"
            )
        return maps[0]


def _mask(logits: Array, first: tuple[int, int], end: tuple[int, int], placement: Placement) -> NDArray[np.bool_]:
    """Pixels of the image from `first` to before `end` (x, y) whose logit, bilinear between cells, is above 0."""
    rows = _places(first[1], end[1], 0, logits.shape[0], placement)
    columns = _places(first[0], end[0], 1, logits.shape[1], placement)
    (top, bottom, down), (left, right, across) = rows, columns
    upper = logits[top][:, left] * (1 - across) + logits[top][:, right] * across
    lower = logits[bottom][:, left] * (1 - across) + logits[bottom][:, right] * across
    found: NDArray[np.bool_] = upper * (1 - down[:, None]) + lower * down[:, None] > 0
    return found


def _places(
    first: int, end: int, axis: int, cells: int, placement: Placement
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """For each image pixel of an axis: the cell before it, the one behind it, and the share of the latter."""
    centres = (np.arange(first, end) + 0.5) * placement.scale[axis] + placement.offset[axis]
    places = np.clip(centres * cells / placement.tensor[axis] - 0.5, 0, cells - 1)
    before = np.floor(places).astype(np.intp)
    return before, np.minimum(before + 1, cells - 1), places - before


class YoloKeypoints(YoloWithMore):
    """`yolo-keypoints`: points in tensor pixels behind the classes, with or without a visibility."""

    keypoints: int = Field(ge=1)
    dimensions: int = Field(default=3, ge=2, le=3)

    def more(self, outputs: Arrays) -> int:
        return self.keypoints * self.dimensions

    def _image(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        kept = self.kept(outputs, placement.tensor)
        found = self.in_image(kept, placement)
        values = self.further(outputs, kept).reshape(-1, self.keypoints, self.dimensions)
        size = np.array(placement.tensor[::-1] if self.normalized else (1, 1))
        points = placement.points_to_image(values[..., :2] * size)
        visible = values[..., 2:] if self.dimensions == 3 else np.ones((*points.shape[:2], 1))
        joined = np.concatenate((points, visible), axis=2).astype(np.float32)
        return Keypoints(found.boxes, found.scores, found.classes, found.labels, joined)
