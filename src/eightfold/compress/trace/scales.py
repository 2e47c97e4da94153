"""Weights that take the factor by which a mean over channels grows; see `rules.means`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from eightfold.compress.trace.components import Grouping
from eightfold.compress.trace.groups import ScaleLink
from eightfold.compress.trace.rules.base import ChannelFactor, Record
from eightfold.compress.trace.spans import runs

Fold = tuple[torch.Tensor, ChannelFactor]


def weights_of(model: nn.Module) -> dict[int, torch.Tensor]:
    """The floating-point tensors that a saved model holds, by their id."""
    held = model.state_dict(keep_vars=True).values()
    return {id(tensor): tensor for tensor in held if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()}


def settled(record: Record) -> list[Fold]:
    """One factor for each weight that takes any. The channels behind the others are frozen: a weight that several
    operators use can take a factor only if all of them ask for the same."""
    by_weight: dict[int, list[Fold]] = {}
    for fold in record.folds:
        by_weight.setdefault(id(fold[0]), []).append(fold)
    found = []
    for number, folds in by_weight.items():
        _, factor = folds[0]
        alike = all(
            each.labels.tobytes() == factor.labels.tobytes() and each.power == factor.power for _, each in folds
        )
        if alike and record.uses[number] == len(folds):
            found.append(folds[0])
        else:
            for _, each in folds:
                record.space.freeze(each.labels, "mean over channels before a weight that others use")
    return found


def scale_links(folds: Iterable[Fold], names: Mapping[int, str], grouping: Grouping) -> tuple[ScaleLink, ...]:
    """The folds in terms of groups, without those whose channels all stay."""
    found = []
    for weight, factor in folds:
        placed = runs(grouping.places(factor.labels))
        parts = tuple((grouping.groups[group].id, spans) for group, spans in placed if group >= 0)
        if any(not grouping.groups[group].frozen for group, _ in placed if group >= 0):
            found.append(ScaleLink(names[id(weight)], factor.power, len(factor.labels), parts))
    return tuple(found)
