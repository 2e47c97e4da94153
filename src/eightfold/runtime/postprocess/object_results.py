"""Detections with more than a box: masks, keypoints, corners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eightfold.json_types import JsonDict
from eightfold.runtime.postprocess.results import Detections


@dataclass(frozen=True, eq=False)
class InstanceMasks(Detections):
    """Objects with the pixels that show them.

    Attributes:
        masks: for each object (h, w) bool: the part of the image that its box covers.
        origins: (n, 2) int64, left and top of that part.
    """

    masks: tuple[NDArray[np.bool_], ...]
    origins: NDArray[np.int64]

    def mask(self, index: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask of one object over an image of `size` (height, width)."""
        whole = np.zeros(size, np.bool_)
        left, top = self.origins[index].tolist()
        part = self.masks[index]
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        return whole

    def to_dict(self) -> JsonDict:
        """With each object a "mask": left and top, height and width, and the lengths of runs row by row, 0 first."""
        found = super().to_dict()
        for each, mask, origin in zip(found["objects"], self.masks, self.origins.tolist(), strict=True):
            each["mask"] = {"origin": origin, "size": list(mask.shape), "runs": run_lengths_of(mask)}
        return {**found, "kind": "instance masks"}


@dataclass(frozen=True, eq=False)
class Keypoints(Detections):
    """Objects with their points.

    Attributes:
        keypoints: (n, points, 3) float32: x and y in image pixels, visibility in 0..1 (1 where the network gives none).
    """

    keypoints: NDArray[np.float32]

    def to_dict(self) -> JsonDict:
        found = super().to_dict()
        for each, points in zip(found["objects"], self.keypoints.tolist(), strict=True):
            each["keypoints"] = points
        return {**found, "kind": "keypoints"}


@dataclass(frozen=True, eq=False)
class OrientedBoxes(Detections):
    """Objects in boxes that are turned; `boxes` are the upright boxes around them, cut to the image.

    Attributes:
        corners: (n, 4, 2) float32, x and y in image pixels, in turn around the box; not cut to the image.
    """

    corners: NDArray[np.float32]

    def to_dict(self) -> JsonDict:
        found = super().to_dict()
        for each, corners in zip(found["objects"], self.corners.tolist(), strict=True):
            each["corners"] = corners
        return {**found, "kind": "oriented boxes"}


def run_lengths_of(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of equal values, row by row; the first is of zeros, and may be 0.

    >>> run_lengths_of(np.array([[False, True], [True, True]]))
    [1, 3]
    >>> run_lengths_of(np.array([[True, False]]))
    [0, 1, 1]
    """
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths
