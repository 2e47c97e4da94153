"""Masked generative distillation (Yang et al. 2022, arXiv:2205.01529): the student's features, with random positions
hidden, must give the teacher's features through a small generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = "mgd"
HIDDEN = 0.65  # share of positions; the paper's value for detection


class MaskedGeneration(nn.Module):
    """Two 3x3 convolutions that restore masked maps, and the mean squared difference in units of the teacher's
    variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.generate = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Both [batch, channels, height, width]; a scalar."""
        shown = (torch.rand_like(student[:, :1]) > HIDDEN).to(student.dtype)
        restored = self.generate(student * shown).float()
        wanted = teacher.detach().float()
        return F.mse_loss(restored, wanted) / (wanted.var() + 1e-12)
