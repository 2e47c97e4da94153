"""Images and targets as the caller has them, turned into batches: one tuple of positional arguments per pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eightfold.compress.types import Batches, ImageBatches

BATCH = 16


def batches_of(images: ImageBatches, batch: int = BATCH) -> Batches:
    """One tensor [n, ...] is cut into batches; of anything else, each item is one batch: a tensor, a tuple of
    positional arguments, or a list that is the model's single argument."""
    parts = torch.split(images, batch) if isinstance(images, Tensor) else images
    return [part if isinstance(part, tuple) else (part,) for part in parts]


def target_batches(targets: ImageBatches, batch: int = BATCH) -> Sequence[Any]:
    """One tensor [n, ...] is cut like the images; anything else holds one target per batch."""
    return torch.split(targets, batch) if isinstance(targets, Tensor) else list(targets)
