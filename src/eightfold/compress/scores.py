"""Importance scores of coupled channels, by name. A score sees the model and its graph and gives every free group a
float64 vector of its width; larger is more important."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eightfold.compress.groups import ChannelGraph, Group, Member, Scores
from eightfold.errors import UnknownNameError

if TYPE_CHECKING:
    import torch
    from torch import nn

Vector = npt.NDArray[np.float64]
Score = Callable[["nn.Module", ChannelGraph], Scores]


def scores_of(model: nn.Module, graph: ChannelGraph, score: str | Score) -> Scores:
    """Scores of every free group by `score`: a registered name, or a function of the model and its graph."""
    if isinstance(score, str):
        if score not in SCORES:
            raise UnknownNameError.of("score", score, SCORES)
        score = SCORES[score]
    return score(model, graph)


def l1(model: nn.Module, graph: ChannelGraph) -> Scores:
    """Mean absolute weight of each channel over the group's producers (Li et al. 2017, arXiv:1608.08710)."""
    tensors = model.state_dict()
    return {group.id: _mean_over_producers(tensors, group, power=1) for group in graph.free}


def l2(model: nn.Module, graph: ChannelGraph) -> Scores:
    """Root mean square weight of each channel over the group's producers."""
    tensors = model.state_dict()
    return {group.id: np.sqrt(_mean_over_producers(tensors, group, power=2)) for group in graph.free}


def bn_scale(model: nn.Module, graph: ChannelGraph) -> Scores:
    """Mean |gamma| over the group's norm scales (Liu et al. 2017, arXiv:1708.06519); L1 where there is none."""
    tensors = model.state_dict()
    return {group.id: _mean_scale(tensors, group) for group in graph.free}


SCORES: dict[str, Score] = {"l1": l1, "l2": l2, "bn_scale": bn_scale}


def _mean_over_producers(tensors: dict[str, torch.Tensor], group: Group, power: int) -> Vector:
    total, count = np.zeros(group.width), np.zeros(group.width)
    for member in group.members_as("producer"):
        tensor = tensors[member.tensor]
        if tensor.dim() > 1:  # a bias says nothing about how much of the input comes through
            _add(total, count, member, _sums(tensor, member.dim, power), tensor.numel() // tensor.shape[member.dim])
    return total / np.maximum(count, 1)


def _mean_scale(tensors: dict[str, torch.Tensor], group: Group) -> Vector:
    total, count = np.zeros(group.width), np.zeros(group.width)
    for member in group.members_as("channelwise"):
        tensor = tensors[member.tensor]
        # The scale of a norm is the vector that has running statistics or a bias beside it and ends in "weight".
        if tensor.dim() == 1 and member.tensor.endswith("weight"):
            _add(total, count, member, _sums(tensor, 0, power=1), 1)
    return total / count if count.all() else _mean_over_producers(tensors, group, power=1)


def _sums(tensor: torch.Tensor, dim: int, power: int) -> Vector:
    """Sum of |value|**power over all dimensions but `dim`, float64 [tensor.shape[dim]]."""
    flat = tensor.detach().movedim(dim, 0).reshape(tensor.shape[dim], -1).float()
    sums = flat.norm(p=power, dim=1).double().cpu().numpy() ** power
    return np.asarray(sums, dtype=np.float64)


def _add(total: Vector, count: Vector, member: Member, sums: Vector, values: int) -> None:
    channels = member.channels()
    np.add.at(total, channels, sums[member.indices()])
    np.add.at(count, channels, float(values))
