"""MODNet's three losses (Ke et al., AAAI 2022, section 3): semantics, detail, and the fused matte."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SEMANTIC_STRIDE = 16
UNKNOWN = 0.5


@dataclass(frozen=True)
class MattingLoss:
    """Weights of the three terms; `boundary` weighs the unknown region in the third."""

    semantic: float = 10.0
    detail: float = 10.0
    matte: float = 1.0
    boundary: float = 4.0

    def __call__(
        self, output: tuple[Tensor, Tensor, Tensor] | Tensor, image: Tensor, alpha: Tensor, trimap: Tensor
    ) -> Tensor:
        """The loss of a batch.

        Args:
            output: (semantic [b, 1, h / 16, w / 16], detail, matte [b, 1, h, w]), or the matte alone.
            image: the network's input [b, 3, h, w].
            alpha: the true matte [b, 1, h, w].
            trimap: 0, 0.5 (unknown) or 1, [b, 1, h, w].
        """
        if isinstance(output, Tensor):
            return self.matte * self.of_matte(output, image, alpha, trimap)
        semantic, detail, matte = output
        return (
            self.semantic * of_semantic(semantic, alpha)
            + self.detail * of_detail(detail, alpha, trimap)
            + self.matte * self.of_matte(matte, image, alpha, trimap)
        )

    def of_matte(self, matte: Tensor, image: Tensor, alpha: Tensor, trimap: Tensor) -> Tensor:
        """L1 of the matte and of the composited foreground, each with the unknown region `boundary` times again."""
        inner = torch.where(trimap == UNKNOWN, matte, trimap)
        pairs = ((matte, 1.0), (inner, self.boundary))
        terms = [weight * (F.l1_loss(each, alpha) + F.l1_loss(image * each, image * alpha)) for each, weight in pairs]
        return torch.stack(terms).sum()


def of_semantic(semantic: Tensor, alpha: Tensor) -> Tensor:
    """Mean squared difference from the blurred matte at 1/16."""
    small = F.interpolate(alpha, scale_factor=1 / SEMANTIC_STRIDE, mode="bilinear", align_corners=False)
    return F.mse_loss(semantic, blurred(small))


def of_detail(detail: Tensor, alpha: Tensor, trimap: Tensor) -> Tensor:
    """L1 in the unknown region, as a mean over all pixels."""
    return (torch.abs(detail - alpha) * (trimap == UNKNOWN)).mean()


def blurred(x: Tensor) -> Tensor:
    """A Gaussian of 3x3, sigma 0.8 (0.3 * ((size - 1) / 2 - 1) + 0.8), reflected at the border."""
    side = torch.exp(-(torch.arange(-1.0, 2.0, device=x.device) ** 2) / (2 * 0.8**2))
    kernel = torch.outer(side, side)
    weight = (kernel / kernel.sum()).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, groups=x.shape[1])
