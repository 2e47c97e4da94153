"""Detections with masks, from prototypes or of an R-CNN, and with keypoints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.errors import BundleError
from eightfold.runtime.postprocess.detect import Candidates
from eightfold.runtime.postprocess.mask_pixels import between_cells, pixels_of
from eightfold.runtime.postprocess.object_results import InstanceMasks, Keypoints
from eightfold.runtime.postprocess.results import Detections
from eightfold.runtime.postprocess.yolo import EndToEnd, YoloBoxes


def output_of_rank(outputs: Arrays, rank: int, wanted: str) -> Array:
    """The only output of one image with that number of axes. Raises BundleError."""
    found = [array for array in outputs.values() if array.ndim == rank]
    if len(found) != 1:
        raise BundleError(
            f"{len(found)} outputs {wanted} for one image", allowed="one", remedy="choose another decoder"
        )
    return found[0]


class YoloWithMore(YoloBoxes):
    """Rows of `yolo-boxes` with further values behind the classes."""

    def more(self, outputs: Arrays) -> int:
        """The number of further values."""
        raise NotImplementedError

    def rows(self, outputs: Arrays) -> Array:
        """(4 + classes + further, N)."""
        rows = output_of_rank(outputs, 2, "(values, N)")
        return rows.T if self.channels_last else rows

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
        whole = (0.0, 0.0, float(placement.tensor[1]), float(placement.tensor[0]))
        parts = pixels_of(found.boxes)
        masks = tuple(between_cells(each, whole, part, placement) > 0 for each, part in zip(logits, parts, strict=True))
        return InstanceMasks(found.boxes, found.scores, found.classes, found.labels, masks, parts[:, :2])

    def _prototypes(self, outputs: Arrays) -> Array:
        return output_of_rank(outputs, 3, "(prototypes, H, W)")


class RcnnMasks(EndToEnd):
    """`rcnn-masks`: final boxes, and for each a map of probabilities over it (He et al., Mask R-CNN, ICCV 2017)."""

    mask_threshold: float = Field(default=0.5, ge=0, le=1)

    def candidates(self, outputs: Arrays, size: tuple[int, int]) -> Candidates:
        return super().candidates({"rows": output_of_rank(outputs, 2, "(K, 6)")}, size)

    def _image(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        kept = self.kept(outputs, placement.tensor)
        found = self.in_image(kept, placement)
        # Around a map all is 0.
        maps = np.pad(output_of_rank(outputs, 3, "(K, H, W)")[kept.numbers], ((0, 0), (1, 1), (1, 1)))
        parts = pixels_of(found.boxes)
        masks = tuple(
            between_cells(each, box, part, placement, border=1) > self.mask_threshold
            for each, box, part in zip(maps, kept.boxes.astype(np.float64), parts, strict=True)
        )
        return InstanceMasks(found.boxes, found.scores, found.classes, found.labels, masks, parts[:, :2])


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
