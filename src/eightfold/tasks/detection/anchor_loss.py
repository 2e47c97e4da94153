"""Loss of anchor-based heads: YOLOv3, YOLOv4 and YOLOv5 with anchors.

Targets and terms follow the PyTorch ports of YOLOv3 from which most pruned YOLOs came. Two differences: a ground truth
that no anchor matches goes to its best anchor (those ports drop it silently), and both cases are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from eightfold.errors import ModelError, UsageError
from eightfold.runtime.postprocess.yolo import YoloAnchors
from eightfold.tasks.detection.overlap import Kind, box_overlap
from eightfold.tasks.detection.targets import NOTHING

LARGEST_FACTOR = 1e3  # of an anchor; exp would overflow


class Positives(NamedTuple):
    """Cells that answer for an object, on one scale: image, anchor, row, column [n]; class [n]; box [n, 4] as x1, y1,
    x2, y2 in grid units, from the cell's corner."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    label: Tensor
    box: Tensor


@dataclass(frozen=True)
class AnchorGains:
    """Weights of the terms, and what decides matches.

    Attributes:
        box, objectness, classes: weights; that of classes is for 80 and shrinks with their number.
        least_iou: of width and height with a common centre, from which an anchor matches.
        unmatched: ground truths that no anchor matches: "best-anchor" or "drop".
        overlap: "giou" or "ciou".
        focal: gamma of the focal loss (Lin et al. 2017, arXiv:1708.02002); 0: none.
    """

    box: float = 3.54
    objectness: float = 64.3
    classes: float = 37.4
    least_iou: float = 0.2
    unmatched: Literal["best-anchor", "drop"] = "best-anchor"
    overlap: Kind = "giou"
    focal: float = 0.0


class AnchorLoss:
    """Box, objectness and class terms of raw maps.

    Attributes:
        ratio: how far the objectness target is the box's overlap rather than 1; a burn-in raises it from 0.
        matched, unmatched: ground truths so far.
    """

    def __init__(self, decoder: YoloAnchors, classes: int, gains: AnchorGains | None = None) -> None:
        self.decoder, self.classes, self.gains = decoder, classes, gains or AnchorGains()
        self.ratio, self.matched, self.unmatched = 1.0, 0, 0

    def __call__(self, maps: Sequence[Tensor], targets: Tensor, size: tuple[int, int]) -> Tensor:
        """A scalar.

        Args:
            maps: [batch, anchors * (5 + classes), height, width] of each scale.
            targets: see `padded_targets`.
            size: (height, width) of the images.
        """
        anchors = self._anchors(maps, size)
        positives = self.positives(maps, targets, size)
        box = objectness = classes = torch.zeros((), device=maps[0].device)
        for scale, (raw, own) in enumerate(zip(maps, positives, strict=True)):
            rows = raw.float().reshape(len(raw), len(anchors[scale]), -1, *raw.shape[2:]).permute(0, 1, 3, 4, 2)
            wanted = torch.zeros_like(rows[..., 4])
            if len(own.image):
                chosen = rows[own.image, own.anchor, own.row, own.column]
                found = box_overlap(self._boxes(chosen, anchors[scale][own.anchor], scale), own.box, self.gains.overlap)
                box = box + (1 - found).mean()
                wanted[own.image, own.anchor, own.row, own.column] = (
                    1 - self.ratio + self.ratio * found.detach().clamp(min=0)
                )
                if self.classes > 1:
                    hot = torch.nn.functional.one_hot(own.label, self.classes).float()
                    classes = classes + self._entropy(chosen[:, 5:], hot)
            objectness = objectness + self._entropy(rows[..., 4], wanted)
        gains = self.gains
        return gains.box * box + gains.objectness * objectness + gains.classes * self.classes / 80 * classes

    def _entropy(self, logits: Tensor, wanted: Tensor) -> Tensor:
        if not self.gains.focal:
            return binary_cross_entropy_with_logits(logits, wanted)
        entropy = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        likely = torch.sigmoid(logits)
        missed = wanted * (1 - likely) + (1 - wanted) * likely
        weight = wanted * 0.25 + (1 - wanted) * 0.75
        return (entropy * weight * missed**self.gains.focal).mean()

    def _boxes(self, chosen: Tensor, anchors: Tensor, scale: int) -> Tensor:
        """[n, 4] in grid units, from the cell's corner."""
        factor = self.decoder._factor(scale)
        centre = torch.sigmoid(chosen[:, :2]) * factor - (factor - 1) / 2
        raw = chosen[:, 2:4]
        growth = torch.exp(raw) if self.decoder.box == "exp" else (2 * torch.sigmoid(raw)).square()
        half = growth.clamp(max=LARGEST_FACTOR) * anchors / 2
        return torch.cat([centre - half, centre + half], 1)

    def _anchors(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """[anchors, 2] of each scale, width and height in grid units."""
        if len(maps) != len(self.decoder.anchors):
            raise ModelError(f"the network gives {len(maps)} maps", allowed=f"{len(self.decoder.anchors)}, as anchors")
        found = []
        for raw, anchors in zip(maps, self.decoder.anchors, strict=True):
            if raw.shape[1] != len(anchors) * (5 + self.classes):
                raise ModelError(
                    f"a map of {raw.shape[1]} channels",
                    allowed=f"{len(anchors)} anchors * (5 + {self.classes} classes) = "
                    f"{len(anchors) * (5 + self.classes)}",
                )
            strides = torch.tensor([size[1] / raw.shape[3], size[0] / raw.shape[2]])
            found.append((torch.tensor(anchors) / strides).to(raw.device))
        return found

    @torch.no_grad()
    def positives(self, maps: Sequence[Tensor], targets: Tensor, size: tuple[int, int]) -> list[Positives]:
        """The cells that answer for each ground truth, by scale."""
        anchors = self._anchors(maps, size)
        image, place = torch.nonzero(targets[..., 0] != NOTHING, as_tuple=True)
        labels, boxes = targets[image, place, 0].long(), targets[image, place, 1:].float()
        if len(labels) and int(labels.max()) >= self.classes:
            raise UsageError(f"a target of class {int(labels.max())}", allowed=f"0 to {self.classes - 1}")
        grids = [boxes / _strides(raw, size).to(boxes.device) for raw in maps]
        fits = [_common_centre_iou(grid, own) for grid, own in zip(grids, anchors, strict=True)]
        masks = [fit > self.gains.least_iou for fit in fits]
        alone = ~torch.cat(masks, 1).any(1) if len(labels) else torch.zeros(0, dtype=torch.bool)
        self.matched += int((~alone).sum())
        self.unmatched += int(alone.sum())
        if self.gains.unmatched == "best-anchor" and bool(alone.any()):
            best = torch.cat(fits, 1).argmax(1)
            first = 0
            for mask in masks:
                numbers = torch.arange(first, first + mask.shape[1], device=best.device)
                mask |= alone[:, None] & (best[:, None] == numbers)
                first += mask.shape[1]
        return [
            _cells(mask, grid, image, labels, raw.shape[2:]) for mask, grid, raw in zip(masks, grids, maps, strict=True)
        ]


def _strides(raw: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.tensor([size[1] / raw.shape[3], size[0] / raw.shape[2]] * 2)


def _common_centre_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """[boxes, anchors]."""
    sizes = (boxes[:, 2:] - boxes[:, :2])[:, None]
    inner = torch.minimum(sizes, anchors).prod(-1)
    return inner / (sizes.prod(-1) + anchors.prod(-1) - inner + 1e-9)


def _cells(mask: Tensor, grid: Tensor, image: Tensor, labels: Tensor, shape: Sequence[int]) -> Positives:
    truth, anchor = torch.nonzero(mask, as_tuple=True)
    centre = (grid[truth, :2] + grid[truth, 2:]) / 2
    column = centre[:, 0].long().clamp(0, shape[1] - 1)
    row = centre[:, 1].long().clamp(0, shape[0] - 1)
    corner = torch.stack([column, row], 1).float().repeat(1, 2)
    return Positives(image[truth], anchor, row, column, labels[truth], grid[truth] - corner)
