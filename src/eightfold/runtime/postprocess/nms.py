"""Non-maximum suppression on boxes that are already in order of falling score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array

Indices = NDArray[np.intp]
BLOCK = 256


def nms(boxes: Array, classes: Array | None, iou_threshold: float, limit: int) -> Indices:
    """Greedy NMS, a block of boxes at a time: against what was kept so far, then within the block.

    Args:
        boxes: (n, 4) float32 x1, y1, x2, y2, best first.
        classes: (n,); boxes of different classes do not compete. None: all compete.
        iou_threshold: a box is dropped when its IoU with a kept one is larger.
        limit: stop after so many.

    Returns:
        indices of the boxes kept, in order.
    """
    kept = np.empty(0, np.intp)
    for start in range(0, len(boxes), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(boxes)))
        if len(kept):
            block = block[~_conflicts(boxes, classes, block, kept, iou_threshold).any(axis=1)]
        kept = np.concatenate([kept, block[_greedy(_conflicts(boxes, classes, block, block, iou_threshold))]])
        if len(kept) >= limit:
            break
    return kept[:limit]


def iou(first: Array, second: Array) -> Array:
    """(n, 4) and (m, 4) boxes -> (n, m) float32 intersection over union; 0 where the union is empty."""
    # Column by column: numpy is slow on a last axis of two.
    intersection = _overlap(first[:, 0], first[:, 2], second[:, 0], second[:, 2])
    intersection *= _overlap(first[:, 1], first[:, 3], second[:, 1], second[:, 3])
    union = _area(first)[:, None] + _area(second)[None, :] - intersection
    overlap: Array = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return overlap


def soft_nms(
    boxes: Array, scores: Array, classes: Array | None, *, sigma: float, threshold: float, limit: int
) -> tuple[Indices, Array]:
    """Gaussian soft-NMS (Bodla et al., ICCV 2017): overlap lowers a score instead of ending it.

    Returns:
        indices of the boxes kept, best first, and their lowered scores.
    """
    scores = scores.astype(np.float32)
    left = np.ones(len(boxes), bool)
    kept: list[int] = []
    lowered: list[float] = []
    while len(kept) < limit and left.any():
        best = int(np.argmax(np.where(left, scores, -np.inf)))
        if scores[best] <= threshold:
            break
        kept.append(best)
        lowered.append(float(scores[best]))
        left[best] = False
        overlap = iou(boxes[best : best + 1], boxes)[0]
        decay = np.exp(-(overlap * overlap) / np.float32(sigma))
        competes = left if classes is None else left & (classes == classes[best])
        scores = np.where(competes, scores * decay, scores)
    return np.array(kept, np.intp), np.array(lowered, np.float32)


def _overlap(low: Array, high: Array, other_low: Array, other_high: Array) -> Array:
    """Length that the intervals of (n,) and (m,) share, (n, m)."""
    shared = np.minimum.outer(high, other_high)
    shared -= np.maximum.outer(low, other_low)
    length: Array = np.maximum(shared, 0, out=shared)
    return length


def _area(boxes: Array) -> Array:
    area: Array = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _conflicts(boxes: Array, classes: Array | None, first: Indices, second: Indices, iou_threshold: float) -> Array:
    overlap: Array = iou(boxes[first], boxes[second]) > iou_threshold
    return overlap if classes is None else overlap & (classes[first][:, None] == classes[second][None, :])


def _greedy(conflicts: Array) -> Array:
    """Indices of the boxes that stay of n, best first, given the conflicts between them. Rows without a later conflict
    cost nothing."""
    later = np.triu(conflicts, 1)
    stays = np.ones(len(later), bool)
    for row in np.flatnonzero(later.any(axis=1)):
        if stays[row]:
            stays &= ~later[row]
    return stays
