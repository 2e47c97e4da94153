"""The evidence that a criterion may use: the network, its channel graph and, if the caller has them, images and
targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eightfold.compress.trace.groups import ChannelGraph, Group, Member
from eightfold.compress.types import Args, Loss
from eightfold.errors import UsageError

Array = npt.NDArray[np.float64]
"""Group id -> float64 [layers, width]; larger is more important."""
VALUES_AT_ONCE = 1 << 17  # 1 MiB of float64: fits the cache


@dataclass(frozen=True)
class Evidence:
    """
    Attributes:
        batches: positional arguments of one forward call each.
        targets: what `loss` compares each batch's output with.
        loss: (output, target) -> scalar tensor.
        seed: for criteria that draw random numbers.
    """

    model: nn.Module
    graph: ChannelGraph
    batches: Sequence[Args] = ()
    targets: Sequence[Any] = ()
    loss: Loss | None = None
    seed: int = 0
    _cache: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Parameters of the network by name."""
        return dict(self.model.named_parameters())

    def value(self, tensor: str) -> Array:
        """A parameter as float64."""
        if tensor not in self._cache:
            self._cache[tensor] = self.parameters[tensor].detach().double().cpu().numpy()
        return self._cache[tensor]

    def means(self, member: Member, of: Callable[[Tensor], Tensor]) -> Array:
        """Mean of an elementwise function of a parameter at each index of the member's dimension, float64."""
        return channel_means(self.parameters[member.tensor], member.dim, of)

    def weights(self, group: Group, *roles: str) -> list[Member]:
        """The group's members with one of `roles` that are weights of at least two dimensions."""
        return [m for m in group.members if m.role in roles and m.tensor in self.parameters and self._rank(m) > 1]

    def norm_scales(self, group: Group) -> list[Member]:
        """The group's members that scale the output of a batch norm."""
        return [m for m in group.members if m.role == "channelwise" and self._is_norm_scale(m.tensor)]

    def need_images(self, criterion: str) -> Sequence[Args]:
        """The batches of images. Raises UsageError if the caller gave none."""
        if not self.batches:
            raise UsageError(
                f"the score {criterion!r} got no images",
                allowed="images=... (a tensor, or batches of model inputs)",
                remedy="pass images, or choose a score of weights alone such as 'l2'",
            )
        return self.batches

    def need_loss(self, criterion: str) -> tuple[Sequence[Args], Sequence[Any], Loss]:
        """Batches, their targets and the loss. Raises UsageError if one of them is missing."""
        batches = self.need_images(criterion)
        if self.loss is None or len(self.targets) != len(batches):
            raise UsageError(
                f"the score {criterion!r} got no loss or not one target for each of {len(batches)} batches",
                allowed="images=..., targets=... and loss=(output, target) -> scalar",
                remedy="pass them, or choose a score without gradients such as 'lsq'",
            )
        return batches, self.targets, self.loss

    def _rank(self, member: Member) -> int:
        return self.parameters[member.tensor].dim()

    def _is_norm_scale(self, tensor: str) -> bool:
        module, _, name = tensor.rpartition(".")
        return name == "weight" and tensor in self.parameters and f"{module}.running_mean" in self.graph.shapes


def per_channel(member: Member, values: Array, width: int) -> Array:
    """Mean of `values` [size of the member's dimension] over the positions of each coupled channel, [width]."""
    channels = member.channels()
    total = np.bincount(channels, weights=values[member.indices()], minlength=width)
    return total / np.maximum(np.bincount(channels, minlength=width), 1)


def channel_means(weight: Tensor, dim: int, of: Callable[[Tensor], Tensor]) -> Array:
    """Mean of `of(weight)` over all dimensions but `dim`, in float64, [size of the dimension].

    Converted piece by piece, so that a large weight is read once and never stands in memory in float64.

    Args:
        of: an elementwise function that leaves its argument as it is.
    """
    table = weight.detach().movedim(dim, 0).reshape(weight.shape[dim], -1)
    at_once = max(1, VALUES_AT_ONCE // max(table.shape[1], 1))
    means: Array = torch.cat([of(part.double()).mean(1) for part in torch.split(table, at_once)]).cpu().numpy()
    return means


def stacked_rows(parts: Sequence[Array], width: int) -> Array:
    """A matrix of one row per part; a single row of ones where no layer has an opinion."""
    return np.stack(parts) if parts else np.ones((1, width))
