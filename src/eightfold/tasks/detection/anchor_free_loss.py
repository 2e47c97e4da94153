"""Loss of anchor-free heads with task-aligned assignment: YOLOv8, YOLO11 and their like.

Written from the papers: TOOD (Feng et al. 2021, arXiv:2108.07755) for assignment and class targets, Generalized Focal
Loss (Li et al. 2020, arXiv:2006.04388, equation 6) for distributions of box sides, CIoU for boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eightfold.errors import ModelError
from eightfold.tasks.detection.assignment import AlignmentOptions, aligned_assignment
from eightfold.tasks.detection.overlap import box_overlap


@dataclass(frozen=True)
class AnchorFreeGains:
    """Weights of the terms: boxes by CIoU, classes by cross-entropy, sides' distributions."""

    box: float = 7.5
    classes: float = 0.5
    distribution: float = 1.5


class AnchorFreeLoss:
    """Box, class and distribution terms of raw maps."""

    def __init__(
        self,
        reg_max: int,
        classes: int,
        gains: AnchorFreeGains | None = None,
        alignment: AlignmentOptions | None = None,
    ) -> None:
        self.reg_max, self.classes = reg_max, classes
        self.gains, self.alignment = gains or AnchorFreeGains(), alignment or AlignmentOptions()

    def __call__(self, maps: Sequence[Tensor], targets: Tensor, size: tuple[int, int]) -> Tensor:
        """A scalar: each term is a sum weighted by target scores, over the sum of all target scores.

        Args:
            maps: [batch, 4 * reg_max + classes, height, width] of each scale.
            targets: see `padded_targets`.
            size: (height, width) of the images.
        """
        wanted_width = 4 * self.reg_max + self.classes
        if any(raw.shape[1] != wanted_width for raw in maps):
            raise ModelError(
                f"maps of {', '.join(str(raw.shape[1]) for raw in maps)} channels",
                allowed=f"4 * {self.reg_max} + {self.classes} classes = {wanted_width}",
            )
        rows = torch.cat([raw.float().flatten(2) for raw in maps], 2).transpose(1, 2)
        sides, logits = rows[..., : 4 * self.reg_max], rows[..., 4 * self.reg_max :]
        points, strides = grid_points(maps, size)
        boxes = self._boxes(sides, points, strides)
        found = aligned_assignment(torch.sigmoid(logits.detach()), boxes.detach(), points, targets, self.alignment)
        total = found.scores.sum().clamp(min=1)
        classes = F.binary_cross_entropy_with_logits(logits, found.scores, reduction="sum") / total
        weight = found.scores.sum(2)[found.positive]
        apart = 1 - box_overlap(boxes[found.positive], found.boxes[found.positive], "ciou")
        box = (apart * weight).sum() / total
        distribution = (self._distribution(sides, points, strides, found.boxes)[found.positive] * weight).sum() / total
        gains = self.gains
        return gains.box * box + gains.classes * classes + gains.distribution * distribution

    def _boxes(self, sides: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        """[batch, points, 4] in pixels."""
        if self.reg_max > 1:
            bins = torch.arange(self.reg_max, dtype=sides.dtype, device=sides.device)
            sides = sides.reshape(*sides.shape[:2], 4, self.reg_max).softmax(3) @ bins
        distances = sides * strides.repeat(1, 2)
        return torch.cat([points - distances[..., :2], points + distances[..., 2:]], 2)

    def _distribution(self, sides: Tensor, points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
        """Mean over sides of the cross-entropy with the two bins beside the true distance, [batch, points]."""
        if self.reg_max == 1:
            return torch.zeros_like(sides[..., 0])
        true = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], 2) / strides.repeat(1, 2)
        true = true.clamp(0, self.reg_max - 1 - 0.01)
        left = true.long()
        share = true - left
        logarithms = sides.reshape(*sides.shape[:2], 4, self.reg_max).log_softmax(3)
        low = logarithms.gather(3, left[..., None])[..., 0]
        high = logarithms.gather(3, left[..., None] + 1)[..., 0]
        entropy: Tensor = -((1 - share) * low + share * high).mean(2)
        return entropy


def grid_points(maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres of all cells, scale by scale, and their strides; both [points, 2] as x, y in pixels."""
    points, strides = [], []
    for raw in maps:
        height, width = raw.shape[2:]
        stride = torch.tensor([size[1] / width, size[0] / height], device=raw.device)
        y, x = torch.meshgrid(
            torch.arange(height, device=raw.device), torch.arange(width, device=raw.device), indexing="ij"
        )
        points.append((torch.stack([x, y], -1).flatten(0, 1).float() + 0.5) * stride)
        strides.append(stride.expand(height * width, 2))
    return torch.cat(points), torch.cat(strides)
