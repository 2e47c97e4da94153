"""Reference boxes of anchor-based detectors, as torchvision lays them out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
Grid = tuple[int, int]


def grid_anchors(
    grids: Sequence[Grid], sizes: Sequence[Sequence[float]], ratios: Sequence[Sequence[float]], size: Grid
) -> Boxes:
    """torchvision's `AnchorGenerator`: (N, 4) corners in tensor pixels, level by level, cell by cell.

    Args:
        grids: (H, W) of each level's map.
        sizes, ratios: per level; ratio is height / width.
        size: (height, width) of the tensor.
    """
    levels = [
        _spread(_base_anchors(level_sizes, level_ratios), grid, size)
        for grid, level_sizes, level_ratios in zip(grids, sizes, ratios, strict=True)
    ]
    return np.concatenate(levels)


def _base_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Boxes:
    height_factors = np.sqrt(np.array(ratios, np.float32))
    widths = ((1 / height_factors)[:, None] * np.array(sizes, np.float32)).ravel()
    heights = (height_factors[:, None] * np.array(sizes, np.float32)).ravel()
    return np.round(np.stack((-widths, -heights, widths, heights), axis=1) / 2)


def _spread(base: Boxes, grid: Grid, size: Grid) -> Boxes:
    stride_y, stride_x = size[0] // grid[0], size[1] // grid[1]
    y, x = np.mgrid[: grid[0], : grid[1]].reshape(2, -1) * np.array([[stride_y], [stride_x]])
    shifts = np.stack((x, y, x, y), axis=1).astype(np.float32)
    spread: Boxes = (shifts[:, None] + base[None]).reshape(-1, 4)
    return spread


def default_boxes(
    grids: Sequence[Grid],
    scales: Sequence[float],
    ratios: Sequence[Sequence[float]],
    steps: Sequence[float] | None,
    clip: bool,
    size: Grid,
) -> Boxes:
    """torchvision's `DefaultBoxGenerator` (Liu et al., SSD, ECCV 2016): (N, 4) corners in tensor pixels.

    Args:
        grids: (H, W) of each level's map.
        scales: one more than levels, as fractions of the tensor.
        ratios: per level; each gives a box and its turned twin.
        steps: pixels between cells per level; None spreads the cells evenly.
        clip: limit widths and heights to the tensor.
        size: (height, width) of the tensor.
    """
    height, width = size
    levels = []
    for level, grid in enumerate(grids):
        pairs = np.array(_pairs(scales[level], scales[level + 1], ratios[level]))
        pairs = pairs.clip(0, 1) if clip else pairs
        rows, columns = (height / steps[level], width / steps[level]) if steps else grid
        y, x = np.mgrid[: grid[0], : grid[1]].reshape(2, -1)
        centres = np.stack(((x + 0.5) / columns, (y + 0.5) / rows), axis=1)[:, None]
        levels.append(np.concatenate((centres - pairs / 2, centres + pairs / 2), axis=2).reshape(-1, 4))
    return (np.concatenate(levels) * (width, height, width, height)).astype(np.float32)


def _pairs(scale: float, following: float, ratios: Sequence[float]) -> list[tuple[float, float]]:
    between = math.sqrt(scale * following)
    pairs = [(scale, scale), (between, between)]
    for ratio in ratios:
        long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        pairs += [(long, short), (short, long)]
    return pairs
