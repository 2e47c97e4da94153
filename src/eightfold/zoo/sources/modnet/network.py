"""MODNet (Ke et al., MODNet: Real-Time Trimap-Free Portrait Matting via Objective Decomposition, AAAI 2022).

Three branches: low resolution (semantics), high resolution (detail), and fusion, which gives the matte. Two auxiliary
heads exist for training only. Names of modules are those of the public checkpoints, in which the backbone has two.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eightfold.zoo.sources.modnet.backbone import TAP_CHANNELS, Backbone

LOW = (96, 32)  # widths of the low-resolution branch
HIGH = 32
REDUCTION = 4
Predictions = tuple[Tensor, Tensor, Tensor]


def resized(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class IBNorm(nn.Module):
    """Batch norm on the first half of the channels, instance norm without scale on the rest.

    The first half is as wide as the batch norm, so that pruning may narrow either.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bnorm = nn.BatchNorm2d(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        width = self.bnorm.num_features
        return torch.cat((self.bnorm(x[:, :width]), F.instance_norm(x[:, width:])), 1)


class ConvIBNormReLU(nn.Module):
    """Convolution with bias, IBNorm, ReLU; a `plain` one is the convolution alone."""

    def __init__(self, channels: int, out: int, size: int, *, stride: int = 1, plain: bool = False) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, out, size, stride, size // 2)
        nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # it has one
        self.layers = nn.Sequential(convolution, *([] if plain else [IBNorm(out), nn.ReLU()]))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class ModnetSqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.fc(x.mean((2, 3)))
        return x * scale[:, :, None, None]


class LowResolutionBranch(nn.Module):
    """Backbone, then 1/32 to 1/8 of the image."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.se_block = ModnetSqueezeExcite(TAP_CHANNELS[2])
        self.conv_lr16x = ConvIBNormReLU(TAP_CHANNELS[2], LOW[0], 5)
        self.conv_lr8x = ConvIBNormReLU(LOW[0], LOW[1], 5)
        self.conv_lr = ConvIBNormReLU(LOW[1], 1, 3, stride=2, plain=True)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(at 1/8, taps at 1/2 and 1/4)."""
        half, quarter, last = self.backbone(image)
        x = self.conv_lr16x(resized(self.se_block(last), 2))
        return self.conv_lr8x(resized(x, 2)), half, quarter

    def semantic(self, eighth: Tensor) -> Tensor:
        """The auxiliary head: a matte at 1/16."""
        return torch.sigmoid(self.conv_lr(eighth))


class HighResolutionBranch(nn.Module):
    """Detail at 1/2, from the image, two taps and the low resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.tohr_enc2x = ConvIBNormReLU(TAP_CHANNELS[0], HIGH, 1)
        self.conv_enc2x = ConvIBNormReLU(HIGH + 3, HIGH, 3, stride=2)
        self.tohr_enc4x = ConvIBNormReLU(TAP_CHANNELS[1], HIGH, 1)
        self.conv_enc4x = ConvIBNormReLU(2 * HIGH, 2 * HIGH, 3)
        self.conv_hr4x = _chain(HIGH * 2 + LOW[1] + 3, 2 * HIGH, 2 * HIGH, HIGH)
        self.conv_hr2x = _chain(2 * HIGH, 2 * HIGH, HIGH, HIGH, HIGH)
        self.conv_hr = nn.Sequential(ConvIBNormReLU(HIGH + 3, HIGH, 3), ConvIBNormReLU(HIGH, 1, 1, plain=True))

    def forward(self, image: Tensor, half: Tensor, quarter: Tensor, eighth: Tensor) -> Tensor:
        half = self.tohr_enc2x(half)
        x = self.conv_enc2x(torch.cat((resized(image, 1 / 2), half), 1))
        x = self.conv_enc4x(torch.cat((x, self.tohr_enc4x(quarter)), 1))
        x = self.conv_hr4x(torch.cat((x, resized(eighth, 2), resized(image, 1 / 4)), 1))
        y: Tensor = self.conv_hr2x(torch.cat((resized(x, 2), half), 1))
        return y

    def detail(self, image: Tensor, high: Tensor) -> Tensor:
        """The auxiliary head: a matte at full size."""
        return torch.sigmoid(self.conv_hr(torch.cat((resized(high, 2), image), 1)))


class FusionBranch(nn.Module):
    """The matte, from both branches and the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_lr4x = ConvIBNormReLU(LOW[1], HIGH, 5)
        self.conv_f2x = ConvIBNormReLU(2 * HIGH, HIGH, 3)
        self.conv_f = nn.Sequential(ConvIBNormReLU(HIGH + 3, HIGH // 2, 3), ConvIBNormReLU(HIGH // 2, 1, 1, plain=True))

    def forward(self, image: Tensor, eighth: Tensor, high: Tensor) -> Tensor:
        low = resized(self.conv_lr4x(resized(eighth, 2)), 2)
        x = self.conv_f2x(torch.cat((low, high), 1))
        return torch.sigmoid(self.conv_f(torch.cat((resized(x, 2), image), 1)))


class MODNet(nn.Module):
    """Images [batch, 3, h, w], (pixel / 255 - 0.5) / 0.5, sides multiples of 32 -> matte [batch, 1, h, w] in 0..1.

    With `heads=True` the answer is (semantic at 1/16, detail, matte), as training needs it. Trace for pruning
    with the heads, `(image, True)`: they lose the channels that they read. An export without them lacks them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.lr_branch = LowResolutionBranch(self.backbone)
        self.hr_branch = HighResolutionBranch()
        self.f_branch = FusionBranch()

    def forward(self, image: Tensor, heads: bool = False) -> Tensor | Predictions:
        eighth, half, quarter = self.lr_branch(image)
        high = self.hr_branch(image, half, quarter, eighth)
        matte: Tensor = self.f_branch(image, eighth, high)
        if not heads:
            return matte
        return self.lr_branch.semantic(eighth), self.hr_branch.detail(image, high), matte


def _chain(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(ConvIBNormReLU(one, other, 3) for one, other in pairwise(widths)))
