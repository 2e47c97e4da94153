"""The classifier of `tiny_run`: inverted residuals as in MobileNetV2, a third as many layers."""

from __future__ import annotations

from torchvision.models import MobileNetV2

BLOCKS = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]  # expansion, channels, repeats, stride


def tiny(num_classes: int) -> MobileNetV2:
    """16 convolutions and a linear layer."""
    return MobileNetV2(num_classes=num_classes, inverted_residual_setting=BLOCKS)
