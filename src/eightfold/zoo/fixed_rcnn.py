"""torchvision's Faster and Mask R-CNN with a fixed number of proposals and detections, so that every shape is static.

Parameters keep their names. Proposals and detections that torchvision drops stay as rows of score 0; all others are
its own. RoiAlign runs on every level for every box, and the level that torchvision picks is taken: sorting boxes by
level has no static shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection, list_models
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, nms, roi_align

from eightfold.runtime.bundle.manifest import Task

# Of the scores of all boxes and classes so many are looked at; torchvision looks at all above its threshold.
MOST_CANDIDATES = 3000
# torchvision's box_score_thresh, as it draws them.
SHOWN = {"score_threshold": 0.05}
LEAST_SIDE = 1e-2  # pixels of a box
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # Lin et al., Feature Pyramid Networks, CVPR 2017, equation 1

Size = tuple[int, int]


def fixed_rcnn_names() -> list[str]:
    """torchvision's Faster and Mask R-CNNs."""
    return [name for name in list_models(module=detection) if name.startswith(("fasterrcnn", "maskrcnn"))]


def fixed_rcnn_task(name: str) -> Task:
    """The task that reads the outputs of a named one."""
    # The graph has applied the threshold; what is below it has score 0.
    return Task(kind="detect", decode="rcnn-masks" if name.startswith("mask") else "end-to-end", options=SHOWN)


class FixedRcnn(nn.Module):
    """A Faster or Mask R-CNN of torchvision.

    Called with prepared images (batch, 3, height, width), it returns "detections" (batch, K, 6) of x1, y1, x2, y2 in
    pixels, score, class, best first, where class 0 is the first that is not background; and of a Mask R-CNN "masks"
    (batch, K, side, side), probabilities over each box.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = detector.backbone, detector.rpn, detector.roi_heads

    @property
    def has_masks(self) -> bool:
        """True for a Mask R-CNN."""
        return bool(self.roi_heads.has_mask())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class. Use in evaluation mode."""
        size = images.shape[-2], images.shape[-1]
        maps: dict[str, Tensor] = self.backbone(images)
        proposals, alive = self._proposals(images, maps)
        heads = self.roi_heads
        features = heads.box_head(self._pooled(heads.box_roi_pool, maps, proposals, size))
        logits, deltas = heads.box_predictor(features)
        detections = self._detections(logits, deltas, proposals, alive, size)
        if not self.has_masks:
            return {"detections": detections}
        return {"detections": detections, "masks": self._masks(maps, detections, size)}

    def _proposals(self, images: Tensor, maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(batch, n, 4) boxes, best first, and (batch, n) 1 where torchvision has them too, else 0."""
        rpn, levels, size = self.rpn, list(maps.values()), (images.shape[-2], images.shape[-1])
        objectness, deltas = rpn.head(levels)
        anchors = rpn.anchor_generator(ImageList(images, [size] * len(images)), levels)
        counts = [each.shape[1] * each.shape[2] * each.shape[3] for each in objectness]
        flat, deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = rpn.box_coder.decode(deltas, anchors).reshape(len(images), -1, 4)
        scores, places, numbers = [], [], []
        start = 0
        for level, (part, count) in enumerate(zip(flat.reshape(len(images), -1).split(counts, 1), counts, strict=True)):
            best, where = part.topk(min(rpn.pre_nms_top_n(), count), dim=1)
            scores.append(best.sigmoid())
            places.append(where + start)
            numbers.append(torch.full_like(best, level))
            start += count
        score, place, number = (torch.cat(each, 1) for each in (scores, places, numbers))
        boxes = clip_boxes_to_image(_rows_of(boxes, place), size)
        score = score * _proper(boxes, rpn.min_size)
        kept = torch.stack([_survivors(*each, rpn.nms_thresh, size) for each in zip(boxes, score, number, strict=True)])
        best, where = kept.topk(min(rpn.post_nms_top_n(), kept.shape[1]), dim=1)
        return _rows_of(boxes, where), (best > 0).to(boxes.dtype)

    def _detections(self, logits: Tensor, deltas: Tensor, proposals: Tensor, alive: Tensor, size: Size) -> Tensor:
        heads, (batch, count) = self.roi_heads, proposals.shape[:2]
        classes = logits.shape[-1] - 1
        boxes = heads.box_coder.decode(deltas, list(proposals)).reshape(batch, count, classes + 1, 4)
        boxes = clip_boxes_to_image(boxes[:, :, 1:], size).reshape(batch, count * classes, 4)
        scores = F.softmax(logits, -1).reshape(batch, count, classes + 1)[:, :, 1:] * alive[:, :, None]
        scores = scores.reshape(batch, count * classes)
        scores = scores * (scores > heads.score_thresh) * _proper(boxes, LEAST_SIDE)
        scores, where = scores.topk(min(MOST_CANDIDATES, count * classes), dim=1)
        boxes, labels = _rows_of(boxes, where), (where % classes).to(boxes.dtype)
        kept = torch.stack(
            [_survivors(*each, heads.nms_thresh, size) for each in zip(boxes, scores, labels, strict=True)]
        )
        scores, where = kept.topk(min(heads.detections_per_img, kept.shape[1]), dim=1)
        found = torch.cat((_rows_of(boxes, where), scores[:, :, None], labels.gather(1, where)[:, :, None]), 2)
        return found * (scores > 0)[:, :, None]

    def _masks(self, maps: dict[str, Tensor], detections: Tensor, size: Size) -> Tensor:
        heads, (batch, count) = self.roi_heads, detections.shape[:2]
        features = heads.mask_head(self._pooled(heads.mask_roi_pool, maps, detections[:, :, :4], size))
        logits: Tensor = heads.mask_predictor(features)
        side = logits.shape[-1]
        label = detections[:, :, 5].reshape(-1, 1, 1, 1).to(torch.int64) + 1  # behind the background
        own = logits.gather(1, label.expand(-1, 1, side, side)).sigmoid().reshape(batch, count, side, side)
        return own * (detections[:, :, 4] > 0)[:, :, None, None]

    @staticmethod
    def _pooled(pool: Any, maps: dict[str, Tensor], boxes: Tensor, size: Size) -> Tensor:
        """(batch * n, channels, side, side) of (batch, n, 4) boxes, as torchvision's MultiScaleRoIAlign."""
        batch, count = boxes.shape[:2]
        levels = [maps[name] for name in pool.featmap_names if name in maps]
        scales = [2.0 ** round(math.log2(each.shape[-2] / max(size))) for each in levels]
        images = torch.arange(batch, dtype=boxes.dtype)[:, None, None].expand(batch, count, 1)
        rois = torch.cat((images, boxes), 2).reshape(-1, 5)
        own = _level_of(rois[:, 1:], -math.log2(scales[0]), -math.log2(scales[-1]))
        parts = [
            roi_align(each, rois, pool.output_size, scale, pool.sampling_ratio)
            * (own == level).to(boxes.dtype)[:, None, None, None]
            for level, (each, scale) in enumerate(zip(levels, scales, strict=True))
        ]
        return torch.stack(parts).sum(0)


def _level_of(boxes: Tensor, lowest: float, highest: float) -> Tensor:
    """(n, 4) -> (n,): the index of the feature map that a box of this area is pooled from."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(CANONICAL_LEVEL + torch.log2(area.sqrt() / CANONICAL_SIDE) + 1e-6)
    return level.clamp(lowest, highest) - lowest


def _rows_of(table: Tensor, places: Tensor) -> Tensor:
    """(batch, m, 4) at (batch, n) places."""
    return table.gather(1, places[:, :, None].expand(-1, -1, table.shape[2]))


def _proper(boxes: Tensor, least: float) -> Tensor:
    """1 for boxes whose sides have this many pixels, else 0."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= least).all(-1).to(boxes.dtype)


def _survivors(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, size: Size) -> Tensor:
    """(n,) scores with 0 for what non-maximum suppression by group drops."""
    # Boxes of different groups are moved apart: torchvision's own way where few are suppressed.
    apart = boxes + (groups * (max(size) + 1))[:, None]
    kept = nms(apart, scores, threshold)
    return torch.zeros_like(scores).scatter(0, kept, scores[kept])
