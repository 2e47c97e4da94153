"""Overlaps of boxes with gradients: IoU, GIoU and CIoU, pair by pair."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from eightfold.errors import one_of

Kind = Literal["iou", "giou", "ciou"]
TINY = 1e-9


def box_overlap(a: Tensor, b: Tensor, kind: Kind = "iou") -> Tensor:
    """Overlap of boxes [..., 4] as x1, y1, x2, y2, in the shape without the last dimension.

    Args:
        kind: "iou"; "giou" (Rezatofighi et al. 2019, arXiv:1902.09630); "ciou" (Zheng et al. 2020, arXiv:1911.08287,
            whose weight of the aspect term has no gradient).
    """
    one_of("overlap", kind, ("iou", "giou", "ciou"))
    inner = _extent(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])).clamp(min=0).prod(-1)
    a_size, b_size = _extent(a[..., :2], a[..., 2:]), _extent(b[..., :2], b[..., 2:])
    union = a_size.prod(-1) + b_size.prod(-1) - inner
    iou = inner / (union + TINY)
    if kind == "iou":
        return iou
    hull = _extent(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    if kind == "giou":
        area = hull.prod(-1)
        return iou - (area - union) / (area + TINY)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(-1) / 4
    aspect = 4 / math.pi**2 * (_angle(b_size) - _angle(a_size)).square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + TINY)
    return iou - apart / (hull.square().sum(-1) + TINY) - weight * aspect


def _extent(low: Tensor, high: Tensor) -> Tensor:
    return high - low


def _angle(size: Tensor) -> Tensor:
    return torch.atan(size[..., 0] / (size[..., 1] + TINY))
