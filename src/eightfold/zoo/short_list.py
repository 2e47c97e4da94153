"""The networks that exports are judged on: twenty over all tasks, as people put them on devices.

`NAME` is torchvision's, `timm:NAME` and `ultralytics:NAME` are those packages'.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# name -> side of its images
SHORT_LIST: Mapping[str, int] = MappingProxyType(
    {
        "resnet18": 224,
        "resnet50": 224,
        "mobilenet_v2": 224,
        "mobilenet_v3_small": 224,
        "efficientnet_b0": 224,
        "shufflenet_v2_x1_0": 224,
        "densenet121": 224,
        "squeezenet1_1": 224,
        "regnet_y_400mf": 224,
        "convnext_tiny": 224,
        "googlenet": 224,
        "swin_t": 224,
        "vit_b_16": 224,
        "lraspp_mobilenet_v3_large": 256,
        "deeplabv3_mobilenet_v3_large": 256,
        "fcn_resnet50": 160,
        "timm:mobilevit_xxs": 256,
        "timm:ghostnet_100": 224,
        "ultralytics:yolov8n": 320,
        "ultralytics:yolo11n": 320,
    }
)
