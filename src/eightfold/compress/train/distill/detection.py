"""Five distillation strategies for anchor-based detectors, as public code for YOLOv3 and YOLOv4 has them.

All terms are sums over cells, divided by the number of images; softmaxes have temperature 3. Three things differ from
that code: the teacher gets no gradient; matched cells cover their whole square in finer feature maps, not only its
diagonal; and features are paired by name (`Distiller`), so that strategies 4 and 5 work after layers were removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from eightfold.errors import UsageError

TEMPERATURE = 3.0
STRATEGIES = (1, 2, 3, 4, 5)


class Matched(Protocol):
    """Cells of one scale that answer for an object: image, anchor, row, column, int64 [n]; box float [n, 4] as x1, y1,
    x2, y2 in grid units from the cell's corner."""

    @property
    def image(self) -> Tensor: ...
    @property
    def anchor(self) -> Tensor: ...
    @property
    def row(self) -> Tensor: ...
    @property
    def column(self) -> Tensor: ...
    @property
    def box(self) -> Tensor: ...


@dataclass(frozen=True)
class HeadMaps:
    """Raw maps of one network.

    Attributes:
        maps: [batch, anchors * (5 + classes), height, width] of each scale.
        anchors: width and height of each in grid units, [anchors, 2] of each scale.
    """

    maps: Sequence[Tensor]
    anchors: Sequence[Tensor]

    def rows(self) -> list[Tensor]:
        """[batch, anchors, height, width, 5 + classes] of each scale, float32."""
        return [
            raw.float().reshape(len(raw), len(own), -1, *raw.shape[2:]).permute(0, 1, 3, 4, 2)
            for raw, own in zip(self.maps, self.anchors, strict=True)
        ]


def detection_distillation(
    strategy: int,
    student: HeadMaps,
    teacher: HeadMaps,
    matched: Sequence[Matched] = (),
    *,
    features: Sequence[tuple[Tensor, Tensor]] = (),
    size: tuple[int, int] = (0, 0),
) -> Tensor:
    """A scalar to add to the detection loss.

    Args:
        strategy: 1: softmax over each cell's whole vector. 2: softmax over objectness and classes; and boxes of matched
            cells towards the ground truth where the student is worse than the teacher. 3: the same with boxes towards
            the teacher's. 4: 3, and attention over positions of `features`. 5: 4, attention in matched cells only.
        matched: of each scale; strategies 2 to 5 need them.
        features: (student's, teacher's) maps with the same positions; strategies 4 and 5 need them.
        size: (height, width) of the images; strategy 5 needs it.

    Raises:
        UsageError: something that the strategy needs is missing.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"detection distillation strategy {strategy}", allowed=f"1 to {STRATEGIES[-1]}")
    if strategy > 1 and len(matched) != len(student.maps):
        raise UsageError(f"strategy {strategy} with matched cells of {len(matched)} scales", allowed="those of all")
    if strategy > 3 and not features:
        raise UsageError(f"strategy {strategy} without features", allowed="pairs of feature maps")
    if strategy == 5 and min(size) < 1:
        raise UsageError("strategy 5 without the images' size", allowed="size=(height, width)")
    own, theirs = student.rows(), [rows.detach() for rows in teacher.rows()]
    batch = len(own[0])
    first = 0 if strategy == 1 else 4
    scores = [_divergence(a[..., first:], b[..., first:]) for a, b in zip(own, theirs, strict=True)]
    total = torch.stack(scores).sum() / batch
    if strategy == 1:
        return 1e-3 * total
    boxes = [
        _box_term(strategy, a, b, cells, anchors)
        for a, b, cells, anchors in zip(own, theirs, matched, student.anchors, strict=True)
    ]
    found = (1e-3 if strategy > 3 else 1e-4) * total + 1e-3 * torch.stack(boxes).sum() / batch
    if strategy < 4:
        return found
    grids = [(rows.shape[2], rows.shape[3]) for rows in own]
    terms = []
    for mine, wanted in features:
        mask = cell_mask(matched, grids, size, batch, mine.shape[2:]).to(mine.device) if strategy == 5 else None
        terms.append(_attention(mine, wanted.detach(), mask))
    return found + 1e-3 * torch.stack(terms).sum() / batch


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """T^2 * KL(teacher || student), summed."""
    wanted = F.log_softmax(teacher / TEMPERATURE, -1)
    seen = F.log_softmax(student / TEMPERATURE, -1)
    return TEMPERATURE**2 * F.kl_div(seen, wanted, log_target=True, reduction="sum")


def _box_term(strategy: int, student: Tensor, teacher: Tensor, cells: Matched, anchors: Tensor) -> Tensor:
    """Sum over matched cells of squared differences of boxes, as centre and size in grid units."""
    place = cells.image, cells.anchor, cells.row, cells.column
    own, theirs = (_boxes(rows[place], anchors[cells.anchor]) for rows in (student, teacher))
    if strategy > 2:
        return (own - theirs).square().sum()
    truth = torch.cat([(cells.box[:, :2] + cells.box[:, 2:]) / 2, cells.box[:, 2:] - cells.box[:, :2]], 1)
    mine, other = (own - truth).square().sum(1), (theirs - truth).square().sum(1)
    return (mine * (mine.detach() > other)).sum()


def _boxes(rows: Tensor, anchors: Tensor) -> Tensor:
    return torch.cat([torch.sigmoid(rows[:, :2]), torch.exp(rows[:, 2:4]) * anchors], 1)


def _attention(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    maps = [features.float().abs().sum(1) for features in (student, teacher)]
    masked = [each if mask is None else each * mask for each in maps]
    return _divergence(masked[0].flatten(1), masked[1].flatten(1))


def cell_mask(
    matched: Sequence[Matched],
    grids: Sequence[tuple[int, int]],
    size: tuple[int, int],
    batch: int,
    shape: Sequence[int],
) -> Tensor:
    """[batch, height, width]: 1 at the positions of a feature map that matched cells cover. Scales whose cells are
    finer than the map's positions are left out.

    Args:
        grids: (height, width) of each scale.
        shape: (height, width) of the feature map.
    """
    mask = torch.zeros(batch, *shape)
    for cells, (rows, columns) in zip(matched, grids, strict=True):
        if rows > shape[0] or columns > shape[1]:
            continue
        tall, wide = shape[0] / rows, shape[1] / columns
        for image, row, column in zip(cells.image.tolist(), cells.row.tolist(), cells.column.tolist(), strict=True):
            mask[image, int(row * tall) : int((row + 1) * tall), int(column * wide) : int((column + 1) * wide)] = 1
    return mask
