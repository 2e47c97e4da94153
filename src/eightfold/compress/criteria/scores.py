"""Scores of coupled channels, by name: what each criterion thinks of every group, and one opinion for each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from eightfold.compress.criteria import data, reconstruction, weights
from eightfold.compress.criteria.evidence import Array, Evidence
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.trace.groups import Group, Scores
from eightfold.errors import UnknownNameError, UsageError

Criterion = Callable[[Evidence], Mapping[str, Array]]
"""Gives each free group a vector [width], or a matrix [layers, width] of one opinion per layer."""

CRITERIA: dict[str, Criterion] = {
    "activation_mean": data.activation_mean,
    "bn_scale": weights.bn_scale,
    "fpgm": weights.fpgm,
    "group_l2": weights.group_l2,
    "hessian_diag": data.hessian_diag,
    "l1": weights.l1,
    "l2": weights.l2,
    "lamp": weights.lamp,
    "lsq": reconstruction.lsq,
    "random": weights.random,
    "taylor": data.taylor,
}


Needs = Literal["weights", "images", "loss"]
# What a criterion looks at beside the weights.
NEEDS: dict[str, Needs] = {"activation_mean": "images", "lsq": "images", "hessian_diag": "loss", "taylor": "loss"}


def register_score(name: str, criterion: Criterion, *, needs: Needs = "weights") -> None:
    """Make `criterion` available as `score=name`. A name that is taken is refused.

    Args:
        needs: "images" or "loss" where it calls `Evidence.need_images` or `need_loss`: a run gives it training images.
    """
    if name in CRITERIA:
        raise UsageError(f"the score {name!r} exists", allowed="a new name", remedy="choose another name")
    CRITERIA[name] = criterion
    NEEDS[name] = needs


def needs_of(name: str) -> Needs:
    """The evidence that a registered score needs."""
    return NEEDS.get(name, "weights")


def layer_scores(evidence: Evidence, score: str | Criterion) -> LayerScores:
    """Group id -> float64 [layers, width], checked, for every free group.

    Args:
        score: a registered name, or a function of `Evidence`.
    """
    if isinstance(score, str):
        if score not in CRITERIA:
            raise UnknownNameError.of("score", score, CRITERIA)
        score = CRITERIA[score]
    found = score(evidence)
    return {group.id: _checked(found, group) for group in evidence.graph.free}


def combined(scores: LayerScores) -> Scores:
    """One score for each channel, float64 [width]: the mean over the group's layers."""
    return {name: matrix.mean(axis=0) for name, matrix in scores.items()}


def _checked(found: Mapping[str, Array], group: Group) -> Array:
    if group.id not in found:
        raise UsageError(f"the score gave nothing for group {group.id!r}", allowed="a score for every free group")
    matrix = np.atleast_2d(np.asarray(found[group.id], dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[1] != group.width or not np.isfinite(matrix).all():
        raise UsageError(
            f"the score of group {group.id!r} has shape {matrix.shape} or holds NaN",
            allowed=f"finite [{group.width}] or [layers, {group.width}]",
        )
    return matrix
