"""Criteria that look at weights alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from eightfold.compress.criteria.evidence import Array, Evidence, per_channel, stacked_rows
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.trace.groups import Group, Member


def l1(evidence: Evidence) -> LayerScores:
    """Mean absolute weight of each filter (Li et al. 2017, arXiv:1608.08710)."""
    return _of_producers(evidence, lambda member: evidence.means(member, torch.abs))


def l2(evidence: Evidence) -> LayerScores:
    """Root mean square weight of each filter (He et al. 2018, arXiv:1808.06866)."""
    return _of_producers(evidence, lambda member: np.sqrt(evidence.means(member, torch.square)))


def bn_scale(evidence: Evidence) -> LayerScores:
    """|gamma| of each batch norm (Liu et al. 2017, arXiv:1708.06519); where a group has none, `l1`."""
    fallback = l1(evidence)

    def score(group: Group) -> Array:
        scales = evidence.norm_scales(group)
        parts = [per_channel(m, np.abs(evidence.value(m.tensor)), group.width) for m in scales]
        return stacked_rows(parts, group.width) if parts else fallback[group.id]

    return {group.id: score(group) for group in evidence.graph.free}


def lamp(evidence: Evidence) -> LayerScores:
    """Squared norm of a filter over the sum of those not smaller (Lee et al. 2021, arXiv:2010.07611, section 3.1).

    Comparable between layers: the largest filter of each layer scores 1. Lee et al. score single weights; here the
    unit is the filter.
    """

    def score(member: Member) -> Array:
        squares = evidence.means(member, torch.square)
        mine = squares[member.indices()]
        order = np.argsort(mine, kind="stable")
        not_smaller = np.empty_like(mine)
        not_smaller[order] = np.cumsum(mine[order][::-1])[::-1]
        squares[member.indices()] = mine / np.maximum(not_smaller, np.finfo(np.float64).tiny)
        return squares

    return _of_producers(evidence, score)


def fpgm(evidence: Evidence) -> LayerScores:
    """Sum of distances to the other filters of the layer: those near the geometric median are replaceable
    (He et al. 2019, arXiv:1811.00250, equation 7)."""

    def score(member: Member) -> Array:
        weight = evidence.value(member.tensor)
        filters = np.moveaxis(weight, member.dim, 0).reshape(weight.shape[member.dim], -1)
        mine = filters[member.indices()]
        squares = np.square(mine).sum(1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * mine @ mine.T, 0))
        result = np.zeros(len(filters))
        result[member.indices()] = distances.sum(1)
        return result

    return _of_producers(evidence, score)


def group_l2(evidence: Evidence) -> LayerScores:
    """Norm over every coupled weight: filters that make the channel, weights that read it, norm scales; each tensor
    counts alike, and the group's mean is 1 (Fang et al. 2023, arXiv:2301.12900, equation 4)."""

    def score(group: Group) -> Array:
        members = evidence.weights(group, "producer", "consumer") + evidence.norm_scales(group)
        parts = []
        for member in members:
            squares = per_channel(member, evidence.means(member, torch.square), group.width)
            parts.append(squares / max(float(squares.mean()), np.finfo(np.float64).tiny))
        norm = np.sqrt(stacked_rows(parts, group.width).mean(0, keepdims=True))
        normalised: Array = norm / max(float(norm.mean()), np.finfo(np.float64).tiny)
        return normalised

    return {group.id: score(group) for group in evidence.graph.free}


def random(evidence: Evidence) -> LayerScores:
    """Uniform noise, seeded: the baseline every criterion should beat."""
    generator = np.random.default_rng(evidence.seed)
    return {group.id: generator.random((1, group.width)) for group in evidence.graph.free}


def _of_producers(evidence: Evidence, score: Callable[[Member], Array]) -> LayerScores:
    """One row for each weight that makes the group's channels; `score` gives a value per index of the member's dim."""

    def of(group: Group) -> Array:
        members = evidence.weights(group, "producer")
        return stacked_rows([per_channel(m, score(m), group.width) for m in members], group.width)

    return {group.id: of(group) for group in evidence.graph.free}
