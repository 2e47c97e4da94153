"""A Mask R-CNN of torchvision with a small backbone, whose random weights give scores all over 0..1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

WIDTH, CLASSES, SIDE = 16, 4, 96


class Backbone(nn.Module):
    """Maps at strides 4, 8 and 16."""

    out_channels = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 7, stride=4, padding=3)
        self.steps = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1) for _ in range(2))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = [torch.relu(self.stem(images))]
        for step in self.steps:
            maps.append(torch.relu(step(maps[-1])))
        return {str(level): each for level, each in enumerate(maps)}


def tiny_rcnn(*, masks: bool = False, seed: int = 0) -> Any:
    """In evaluation mode; takes a list of prepared images as it is."""
    torch.manual_seed(seed)
    names = ["0", "1", "2"]
    options: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(((8,), (16,), (32,)), ((0.5, 1.0, 2.0),) * 3),
        "box_roi_pool": MultiScaleRoIAlign(names, 7, 2, canonical_scale=224),
        "box_head": TwoMLPHead(WIDTH * 49, 32),
        "box_predictor": FastRCNNPredictor(32, CLASSES),
        "rpn_pre_nms_top_n_test": 60,
        "rpn_post_nms_top_n_test": 40,
        "box_detections_per_img": 20,
    }
    if masks:
        options |= {
            "mask_roi_pool": MultiScaleRoIAlign(names, 14, 2),
            "mask_head": MaskRCNNHeads(WIDTH, (WIDTH,), 1),
            "mask_predictor": MaskRCNNPredictor(WIDTH, WIDTH, CLASSES),
        }
    detector = (MaskRCNN if masks else FasterRCNN)(Backbone(), **options).eval()
    for name, parameter in detector.named_parameters():
        if parameter.ndim > 1:  # random maps keep their spread from layer to layer
            nn.init.kaiming_normal_(parameter)
        if "bbox_pred" in name:
            parameter.data.mul_(0.1)
        if "cls_logits" in name or "mask_fcn_logits" in name:
            parameter.data.mul_(0.5)
    detector.transform.resize = lambda image, target: (image, target)
    detector.transform.postprocess = lambda found, *sizes: found  # keeps masks as maps over their boxes
    detector.transform.image_mean, detector.transform.image_std = [0.0] * 3, [1.0] * 3
    return detector
