"""transformers' models with one tensor as output. Imports torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Logits(nn.Module):
    """A vision model that takes images (batch, channels, height, width) and returns its logits, or all its tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        found = self.model(pixel_values=images, return_dict=True)
        logits = getattr(found, "logits", None)
        return found.to_tuple() if logits is None else logits
