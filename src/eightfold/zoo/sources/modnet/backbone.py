"""MODNet's backbone: MobileNetV2 (Sandler et al., CVPR 2018) without its classifier, read at five depths.

Names of modules are those of the public checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

# Expansion, channels, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, LAST = 32, 1280
# Features behind which the branches read: at 1/2, 1/4 and 1/32 of the image.
TAPS = (1, 3, 18)
TAP_CHANNELS = (16, 24, LAST)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; added to the input where the shapes are equal."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        expand = _convolution(channels, hidden, 1) if expansion > 1 else []
        depthwise = _convolution(hidden, hidden, 3, stride=stride, groups=hidden)
        project = _convolution(hidden, out, 1)[:2]
        self.conv = nn.Sequential(*expand, *depthwise, *project)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_convolution(3, STEM, 3, stride=2))]
        channels = STEM
        for expansion, out, blocks, stride in STAGES:
            for number in range(blocks):
                layers.append(InvertedResidual(channels, out, 1 if number else stride, expansion))
                channels = out
        layers.append(nn.Sequential(*_convolution(channels, LAST, 1)))
        self.features = nn.Sequential(*layers)


class Backbone(nn.Module):
    """Gives the maps at 1/2, 1/4 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Features()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        taps, x = [], image
        for number, layer in enumerate(self.model.features):
            x = layer(x)
            if number in TAPS:
                taps.append(x)
        half, quarter, last = taps
        return half, quarter, last


def _convolution(channels: int, out: int, size: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out), nn.ReLU6()]
