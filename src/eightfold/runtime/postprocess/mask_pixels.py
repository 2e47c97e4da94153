"""From the cells of a mask to the pixels of the image, bilinear between cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.calib.images.geometry import Placement

Floats = NDArray[np.float64]
Taps = tuple[NDArray[np.intp], NDArray[np.intp], Floats]


def pixels_of(boxes: Array) -> NDArray[np.int64]:
    """(n, 4) boxes in the image -> (n, 4) of the first pixel x, y that each covers, and of the first behind it."""
    return np.ceil(boxes).astype(np.int64)


def between_cells(
    cells: Array, area: Sequence[float] | Floats, part: NDArray[np.int64], placement: Placement, *, border: int = 0
) -> Floats:
    """Values at the centres of a part's pixels.

    Args:
        cells: (H, W) values.
        area: x1, y1, x2, y2 in tensor pixels that the cells cover, but for the border.
        part: pixels x1, y1 to before x2, y2 of the image.
        placement: of the image in the tensor.
        border: cells on each side that lie outside the area.
    """
    (top, bottom, down), (left, right, across) = (
        _taps(
            (_centres(part[at], part[at + 2], 1 - at, placement) - area[at])
            * (cells.shape[1 - at] - 2 * border)
            / (area[at + 2] - area[at])
            - 0.5
            + border,
            cells.shape[1 - at],
        )
        for at in (1, 0)
    )
    upper = cells[top][:, left] * (1 - across) + cells[top][:, right] * across
    lower = cells[bottom][:, left] * (1 - across) + cells[bottom][:, right] * across
    between: Floats = upper * (1 - down[:, None]) + lower * down[:, None]
    return between


def _centres(first: int, end: int, axis: int, placement: Placement) -> Floats:
    """Centres of image pixels of an axis (0: rows) in tensor pixels."""
    centres: Floats = (np.arange(first, end, dtype=np.float64) + 0.5) * placement.scale[axis] + placement.offset[axis]
    return centres


def _taps(places: Floats, cells: int) -> Taps:
    """For each place, cut to the cells: the cell before it, the one behind it, and the share of the latter."""
    cut: Floats = np.clip(places, 0, cells - 1).astype(np.float64, copy=False)
    before = np.floor(cut).astype(np.intp)
    return before, np.minimum(before + 1, cells - 1), cut - before
