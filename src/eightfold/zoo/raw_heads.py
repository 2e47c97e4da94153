"""torchvision's single-shot detectors as they are exported: images in, raw heads out, and how these are read.

What follows the head there (boxes, thresholds, suppression) is what the runtimes do, or the graph where that is asked
for. Weights of the whole detector fit: parameters keep their names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, get_model, list_models
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from eightfold.errors import ModelError, first_line
from eightfold.runtime.bundle.manifest import Task


class RawHead(nn.Module):
    """The backbone and the head of an SSD, a RetinaNet or an FCOS.

    Called with images (batch, 3, height, width), prepared, it returns "cls_logits" (batch, boxes, classes),
    "bbox_regression" (batch, boxes, 4) and for FCOS "bbox_ctrness" (batch, boxes, 1).
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.get_submodule("backbone"), detector.get_submodule("head")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.head(self.maps(images))
        return outputs

    def maps(self, images: Tensor) -> list[Tensor]:
        """The feature maps that the head reads, level by level."""
        found = self.backbone(images)
        return [found] if isinstance(found, Tensor) else list(found.values())


def raw_head_names() -> list[str]:
    """torchvision's detectors but the R-CNNs, which suppress boxes half way."""
    return [name for name in list_models(module=detection) if "rcnn" not in name]


def build_detector(name: str, num_classes: int) -> nn.Module:
    """The detector with random weights; SSD and R-CNNs get one more class for the background."""
    background = int(has_background(name))
    model: nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes + background)
    return model


def has_background(name: str) -> bool:
    """True if class 0 of the detector's head is the background, which answers do not count."""
    return name.startswith("ssd") or "rcnn" in name


@functools.cache  # every step of a run asks, and a pass in shapes alone takes a second
def raw_head_task(name: str, size: tuple[int, int]) -> Task:
    """The task that reads the raw head of a named detector for images of this (height, width): the anchors of its
    levels, and torchvision's thresholds.

    Raises:
        ModelError: the network does not run at that size.
    """
    with torch.device("meta"):
        detector = build_detector(name, 1).eval()
        try:
            maps = RawHead(detector).maps(torch.zeros(1, 3, *size))
        except RuntimeError as error:
            raise ModelError(
                f"{name} does not run on images of {size[0]}x{size[1]} ({first_line(error)})",
                allowed="larger images",
            ) from None
    grids = [list(each.shape[-2:]) for each in maps]
    decode, read = _READERS[type(detector)]
    return Task(kind="detect", decode=decode, options={"grids": grids, **_limits(detector), **read(detector)})


def _limits(detector: Any) -> dict[str, Any]:
    return {
        "score_threshold": detector.score_thresh,
        "iou_threshold": detector.nms_thresh,
        "max_detections": detector.detections_per_img,
    }


def _read_ssd(detector: Any) -> dict[str, Any]:
    boxes = detector.anchor_generator
    return {
        "aspect_ratios": boxes.aspect_ratios,
        "scales": boxes.scales,
        "steps": boxes.steps,
        "clip": boxes.clip,
        "weights": detector.box_coder.weights,
        "class_candidates": detector.topk_candidates,
    }


def _read_fcos(detector: Any) -> dict[str, Any]:
    anchors = detector.anchor_generator
    return {
        "sizes": anchors.sizes,
        "aspect_ratios": anchors.aspect_ratios,
        "level_candidates": detector.topk_candidates,
    }


def _read_retinanet(detector: Any) -> dict[str, Any]:
    return {**_read_fcos(detector), "weights": detector.box_coder.weights}


_READERS: dict[type[nn.Module], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    SSD: ("ssd", _read_ssd),
    RetinaNet: ("retinanet", _read_retinanet),
    FCOS: ("fcos", _read_fcos),
}
