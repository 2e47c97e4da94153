"""Networks of the lists of coverage by name, with random weights that let every channel count."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn


def build(name: str) -> tuple[nn.Module, Any]:
    """The network called `name` with random weights, and an input for it."""
    if name.endswith(".yaml"):
        return _ultralytics(name)
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"))
    return _torchvision(name)


ULTRALYTICS = {
    "-seg": "SegmentationModel", "-pose": "PoseModel", "-obb": "OBBModel", "-cls": "ClassificationModel",
    "-sem": "SemanticSegmentationModel", "-depth": "DepthModel", "-world": "WorldModel", "yoloe": "YOLOEModel",
    "rtdetr": "RTDETRDetectionModel",
}  # fmt: skip


def _ultralytics(name: str) -> tuple[nn.Module, Any]:
    from ultralytics.nn import tasks

    kind = next((kind for part, kind in ULTRALYTICS.items() if part in name), "DetectionModel")
    kind = "YOLOESegModel" if "yoloe" in name and "-seg" in name else kind
    size = 256 if "-p6" in name else 160 if "rtdetr" in name else 128
    return getattr(tasks, kind)(name, verbose=False), torch.rand(1, 3, size, size)


def _timm(name: str) -> tuple[nn.Module, Any]:
    import timm

    model = timm.create_model(name, pretrained=False)
    size = model.default_cfg["input_size"][1]
    small = torch.rand(1, 3, 128, 128)
    try:
        with torch.no_grad():
            model.eval()(small)
    except Exception:  # whatever a model's code raises: it wants the size it was made for
        return model, torch.rand(1, 3, size, size)
    return model, small


def _torchvision(name: str) -> tuple[nn.Module, Any]:
    from torchvision import models

    family, _, kind = name.rpartition(":")
    if family:
        return _other_torchvision(family, kind)
    for module in (models.detection, models.segmentation):
        if hasattr(module, name):
            small = {"min_size": 160, "max_size": 320} if re.search("rcnn|retina|fcos", name) else {}
            model = getattr(module, name)(weights=None, weights_backbone=None, **small)
            return model, ([torch.rand(3, 128, 128)],) if module is models.detection else torch.rand(1, 3, 128, 128)
    size = 299 if "inception" in name else 224 if re.search("vit|swin", name) else 64
    return models.get_model(name, weights=None), torch.rand(1, 3, size, size)


def _other_torchvision(family: str, name: str) -> tuple[nn.Module, Any]:
    from torchvision import models

    if family == "flow":
        return getattr(models.optical_flow, name)(weights=None), (
            torch.rand(1, 3, 128, 128),
            torch.rand(1, 3, 128, 128),
        )
    if family == "video":
        frames, size = {"s3d": (14, 224), "swin3d_t": (4, 64)}.get(name, (16, 224) if "mvit" in name else (8, 64))
        return getattr(models.video, name)(weights=None), torch.rand(1, 3, frames, size, size)
    size = 299 if "inception" in name else 64
    return getattr(models.quantization, name)(weights=None, quantize=False), torch.rand(1, 3, size, size)


def enliven(model: nn.Module) -> nn.Module:
    """Give constant parameters and batch norm statistics some spread, so that no channel is silent."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.data = 0.2 * torch.randn(module.running_mean.shape, generator=generator)
            module.running_var.data = 0.5 + torch.rand(module.running_mean.shape, generator=generator)
    for parameter in model.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()
