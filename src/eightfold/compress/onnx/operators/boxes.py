"""Operators on boxes and regions."""

from __future__ import annotations

import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, operator


@operator("NonMaxSuppression")
def non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor | None = None,
    overlap: Tensor | None = None,
    least: Tensor | None = None,
) -> Tensor:
    """boxes [batch, n, 4], scores [batch, classes, n] -> [chosen, 3]: batch, class and box."""
    from torchvision.ops import box_convert, nms

    corners = box_convert(boxes, "cxcywh", "xyxy") if node.flag("center_point_box") else _ordered(boxes)
    limit = 0 if most is None else int(most.item())
    rows = []
    for image in range(scores.shape[0] if limit else 0):
        for kind in range(scores.shape[1]):
            row = scores[image, kind]
            places = torch.arange(len(row)) if least is None else torch.nonzero(row > least.item()).reshape(-1)
            kept = nms(corners[image][places], row[places], 0.0 if overlap is None else float(overlap.item()))[:limit]
            chosen = places[kept]
            rows.append(torch.stack([torch.full_like(chosen, image), torch.full_like(chosen, kind), chosen], 1))
    return torch.cat(rows) if rows else torch.zeros(0, 3, dtype=torch.int64)


def _ordered(boxes: Tensor) -> Tensor:
    """Corners may be any two that face each other."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


@operator("RoiAlign")
def roi_align(node: Node, x: Tensor, regions: Tensor, images: Tensor) -> Tensor:
    from torchvision.ops import roi_align as align

    if node.text("mode", "avg") != "avg":
        raise node.refuse("mode max")
    old = "output_half_pixel" if node.opset < 16 else "half_pixel"
    aligned = node.text("coordinate_transformation_mode", old) == "half_pixel"
    rows = torch.cat([images.to(regions.dtype).unsqueeze(1), regions], 1)
    size = (node.integer("output_height", 1), node.integer("output_width", 1))
    ratio = node.integer("sampling_ratio") or -1
    made: Tensor = align(x, rows, size, node.real("spatial_scale", 1.0), ratio, aligned)
    return made
