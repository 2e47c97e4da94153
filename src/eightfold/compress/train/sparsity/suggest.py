"""Suggestions for sparse training: the strength that fits a schedule, and the share of channels that may go after."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from eightfold.compress.train.schedule import LearningRate
from eightfold.compress.train.sparsity.history import DEAD
from eightfold.compress.train.sparsity.scales import batch_norm_scales
from eightfold.compress.train.sparsity.strength import RELEASE, Kind, Strength
from eightfold.errors import ModelError

HALF = 0.5
SAMPLES = 200  # of the schedule


def suggested_strength(
    model: nn.Module,
    *,
    rate: float,
    steps: int,
    momentum: float = 0.9,
    schedule: LearningRate | None = None,
    kind: Kind = "constant",
) -> float:
    """The s at which a scale of median size, that no loss holds, is zero after half of the time that the penalty acts.

    SGD with momentum m moves such a scale by s * (sum of rates) / (1 - m). Scales that the loss holds stay; with a
    larger s more of them go, and accuracy with them.

    Args:
        rate: peak learning rate of SGD.
        steps: optimizer steps.
        schedule: of the rate; a cosine by default.
        kind: schedule of the penalty.
    """
    scales = _scales(model)
    schedule, strength = schedule or LearningRate(), Strength(1.0, kind)
    acts = HALF * (RELEASE if kind == "release" else 1.0)
    places = [acts * (place + 0.5) / SAMPLES for place in range(SAMPLES)]
    mean = sum(schedule.factor(place) * strength.share(place) for place in places) / SAMPLES
    return float(torch.cat(scales).median()) / (rate * acts * steps * mean / (1 - momentum))


@dataclass(frozen=True)
class RatioSuggestion:
    """
    Attributes:
        removable: share of the channels below 1% of their layer's largest: removing them hardly changes anything.
        limit: the largest share that one threshold removes without emptying a layer.
    """

    removable: float
    limit: float

    def describe(self) -> str:
        """One line."""
        return (
            f"suggested: --keep {1 - min(self.removable, self.limit):.2f} ({self.removable:.0%} of the scales are "
            f"below 1% of their layer's largest; {self.limit:.0%} can go by one threshold, and no layer empties)"
        )


def suggested_ratio(model: nn.Module) -> RatioSuggestion:
    """The share of channels that sparse training has made removable, from the batch norm scales."""
    scales = _scales(model)
    pool = torch.cat(scales)
    dead = torch.cat([scale < DEAD * scale.max().clamp(min=1e-30) for scale in scales])
    smallest_top = min(float(scale.max()) for scale in scales)
    return RatioSuggestion(float(dead.float().mean()), float((pool < smallest_top).float().mean()))


def _scales(model: nn.Module) -> list[torch.Tensor]:
    scales = [scale.detach().abs().float().cpu() for scale in batch_norm_scales(model).values()]
    if not scales:
        raise ModelError("the network has no batch norm scales", allowed="networks with batch norms")
    return scales
