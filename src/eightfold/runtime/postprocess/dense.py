"""Answers for every pixel: segmentation and matting; and outputs handed on as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.runtime.bundle.manifest import TaskKind
from eightfold.runtime.postprocess.decoder import Decoder, the_output, wrong_shape
from eightfold.runtime.postprocess.results import Matte, Segmentation, Tensors

OUTSIDE = 255


class Segment(Decoder):
    """`segment`: the best class of each pixel, from one output (B, C, H, W)."""

    kind: ClassVar[TaskKind] = "segment"
    threshold: float = 0.0

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Segmentation]:
        scores = the_output(outputs)
        if scores.ndim != 4 or scores.shape[1] > OUTSIDE:
            raise wrong_shape("of the segmenter", scores, f"(B, classes up to {OUTSIDE}, H, W)")
        return [
            Segmentation(labels_in_image(self._cells(row), placement), self.labels)
            for row, placement in zip(scores, placements, strict=False)
        ]

    def _cells(self, scores: Array) -> NDArray[np.uint8]:
        classes = scores[0] > self.threshold if len(scores) == 1 else scores.argmax(axis=0)
        return np.asarray(classes, np.uint8)


def labels_in_image(cells: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """(H, W) over the tensor -> (image height, image width): each pixel takes the cell that its centre lies in."""
    rows = _cells_of_axis(0, cells.shape[0], placement)
    columns = _cells_of_axis(1, cells.shape[1], placement)
    # A border of one cell stands for everything outside the tensor.
    bordered = np.pad(cells, 1, constant_values=OUTSIDE)
    return bordered[rows + 1][:, columns + 1]


def _cells_of_axis(axis: int, cells: int, placement: Placement) -> NDArray[np.intp]:
    """For each image pixel of an axis the cell it falls into; -1 or `cells` outside."""
    centres = (np.arange(placement.source[axis]) + 0.5) * placement.scale[axis] + placement.offset[axis]
    found = np.floor(centres * cells / placement.tensor[axis])
    return np.clip(found, -1, cells).astype(np.intp)


class AlphaMatte(Decoder):
    """`matte`: foreground opacity from one output (B, 1, H, W)."""

    kind: ClassVar[TaskKind] = "matte"
    output: str = ""

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Matte]:
        alpha = the_output(outputs, self.output or next(iter(outputs)))
        if alpha.ndim != 4 or alpha.shape[1] != 1:
            raise wrong_shape("of the matting network", alpha, "(B, 1, H, W)")
        pairs = zip(alpha, placements, strict=False)
        return [Matte(np.clip(place.mask_to_image(row[0]), 0, 1).astype(np.float32)) for row, place in pairs]


class AsTheyAre(Decoder):
    """`tensors`: each image's outputs, undecoded."""

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Tensors]:
        return [
            Tensors({name: array[index].copy() for name, array in outputs.items()}) for index in range(len(placements))
        ]
