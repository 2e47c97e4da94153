"""Task-aligned assignment of anchor points to ground truths (Feng et al. 2021, TOOD, arXiv:2108.07755, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eightfold.tasks.detection.overlap import box_overlap
from eightfold.tasks.detection.targets import NOTHING

TINY = 1e-9


@dataclass(frozen=True)
class AlignmentOptions:
    """
    Attributes:
        top: points for each ground truth.
        alpha, beta: alignment = score^alpha * IoU^beta.
    """

    top: int = 10
    alpha: float = 0.5
    beta: float = 6.0


class Assigned(NamedTuple):
    """Of each point: whether it answers for an object [batch, points]; the object's box [batch, points, 4]; target
    scores [batch, points, classes], which are 0 but at that object's class."""

    positive: Tensor
    boxes: Tensor
    scores: Tensor


@torch.no_grad()
def aligned_assignment(
    scores: Tensor, boxes: Tensor, points: Tensor, targets: Tensor, options: AlignmentOptions | None = None
) -> Assigned:
    """Assign points to ground truths by what the network gives there.

    Each ground truth takes the `top` points inside its box with the best alignment. A point that several take goes to
    the one that its box overlaps most. Target scores are alignments, scaled so that the best of each ground truth
    equals its largest IoU.

    Args:
        scores: [batch, points, classes], probabilities.
        boxes: [batch, points, 4], x1, y1, x2, y2 in pixels; overlaps are CIoU, those below 0 count as 0.
        points: [points, 2], x and y in pixels.
        targets: see `padded_targets`.
    """
    options = options or AlignmentOptions()
    labels, truths = targets[..., 0], targets[..., 1:]
    real = labels != NOTHING
    gaps = torch.cat([points - truths[:, :, None, :2], truths[:, :, None, 2:] - points], -1)
    inside = (gaps.amin(-1) > TINY) & real[..., None]
    ious = box_overlap(boxes[:, None], truths[:, :, None], "ciou").clamp(min=0) * inside
    index = labels.long().clamp(min=0)[..., None].expand(-1, -1, scores.shape[1])
    own = scores.transpose(1, 2).gather(1, index)
    alignment = own.pow(options.alpha) * ious.pow(options.beta) * inside
    taken = _best(alignment, inside, options.top)
    contested = taken.sum(1, keepdim=True) > 1
    winner = torch.zeros_like(taken).scatter_(1, (ious * taken).argmax(1, keepdim=True), True)
    taken = torch.where(contested, taken & winner, taken)
    chosen = taken.to(torch.int8).argmax(1)
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    positive = taken.any(1)
    kept = alignment * taken
    scale = (ious * taken).amax(2, keepdim=True) / (kept.amax(2, keepdim=True) + TINY)
    strength = (kept * scale).amax(1)
    hot = torch.zeros_like(scores).scatter_(2, index[rows, chosen][..., :1], strength[..., None].to(scores.dtype))
    return Assigned(positive, truths[rows, chosen], hot * positive[..., None])


def _best(alignment: Tensor, inside: Tensor, count: int) -> Tensor:
    """Mask of the `count` points inside with the best alignment, of each ground truth."""
    ranked = torch.where(inside, alignment, torch.full_like(alignment, -1.0))
    values, places = ranked.topk(min(count, ranked.shape[2]), 2)
    return torch.zeros_like(inside).scatter_(2, places, values >= 0)
