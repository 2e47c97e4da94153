"""Selection rules: what each group would like to keep, before counts are rounded. Plain numpy.

The rules are those that users of network slimming know, on coupled groups instead of Darknet's layer lists. The pool
is the scores of all channels in question, ascending; the threshold is the entry at index N * (1 - keep_ratio).

- uniform: every group is its own pool, and keeps its keep_ratio best.
- global: scores divided by their group's mean, in one pool; what exceeds the threshold stays, and of channels that
  score exactly the threshold the share that makes up the keep_ratio.
- normal: only groups that one layer makes; those that a shortcut couples stay whole. Score >= threshold stays,
  but for scores of zero, of which proximal sparse training leaves many.
- regular: as normal, with counts rounded up.
- shortcut: the first layer of each group makes the pool and decides (score >= threshold); the others follow it.
- slim: all layers make the pool and vote (score > threshold); each keeps layer_keep of its width at least, and the
  votes of coupled layers are merged.
- layer: every channel stays, only residual blocks go. layer_channel: as slim, and residual blocks go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from eightfold.compress.trace.groups import Group

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
LayerScores = Mapping[str, Vector]
Merge = Literal["union", "intersection", "least", "most"]
TINY = 1e-12
MEASURED = "measured"  # decided on images, in `eightfold.compress.sensitivity.rule`


@dataclass(frozen=True)
class GroupRequest:
    """The channels that one group asks to keep: a count, and an order.

    `order` is as long as the group is wide; the count is rounded later and the highest entries stay."""

    count: float
    order: Vector


@dataclass(frozen=True)
class RuleOptions:
    """Options of the rules beside the scores."""

    keep_ratio: float = 0.5
    layer_keep: float = 0.01
    merge: Merge = "union"
    depthwise: frozenset[str] = frozenset()  # weights of layers that mix no channels


Rule = Callable[[Sequence[Group], LayerScores, RuleOptions], dict[str, GroupRequest]]


def uniform(groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> dict[str, GroupRequest]:
    """Keep the same ratio of every group."""
    return {g.id: GroupRequest(g.width * options.keep_ratio, scores[g.id].mean(0)) for g in groups}


def _relative(groups: Sequence[Group], scores: LayerScores) -> dict[str, Vector]:
    """Scores divided by the mean of their group."""
    return {g.id: scores[g.id].mean(0) / max(float(scores[g.id].mean()), TINY) for g in groups}


def global_threshold(groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> dict[str, GroupRequest]:
    """Cut all groups by one threshold over scores that are normalized per group."""
    normal = _relative(groups, scores)
    cut = threshold(list(normal.values()), options.keep_ratio)
    share = _share_at(cut, list(normal.values()), options.keep_ratio)
    counts = {name: (values > cut).sum() + share * (values == cut).sum() for name, values in normal.items()}
    return {name: GroupRequest(float(counts[name]), values) for name, values in normal.items()}


def _share_at(cut: float, pool: Sequence[Vector], keep_ratio: float) -> float:
    """Share of the channels that score exactly `cut` to keep, so that the pool keeps the requested ratio: all of a
    network's scores may be equal, such as batch norm scales before training."""
    values = np.concatenate([*pool, np.zeros(0)])
    at, above = int((values == cut).sum()), int((values > cut).sum())
    kept = values.size - min(int(values.size * (1 - keep_ratio)), values.size - 1)
    return (kept - above) / at if at else 1.0


def _alone(groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> dict[str, Vector]:
    """Scores of the groups that one layer makes."""
    return {g.id: scores[g.id].mean(0) for g in groups if not coupled(g, options.depthwise)}


def normal(groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> dict[str, GroupRequest]:
    """Cut groups of a single layer by one threshold; coupled groups stay whole."""
    alone = _alone(groups, scores, options)
    cut = threshold(list(alone.values()), options.keep_ratio)
    return {name: GroupRequest(float(_reached(values, cut).sum()), values) for name, values in alone.items()}


def shortcut(groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> dict[str, GroupRequest]:
    """Cut every group by one threshold over the scores of its first layer."""
    leaders = {g.id: scores[g.id][0] for g in groups}
    cut = threshold(list(leaders.values()), options.keep_ratio)
    return {name: GroupRequest(float(_reached(values, cut).sum()), values) for name, values in leaders.items()}


def _reached(values: Vector, cut: float) -> Mask:
    """Channels at the threshold or above; a score of zero never reaches it, even where more than asked for are zero."""
    return values > 0 if cut == 0 else values >= cut


def slim(groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> dict[str, GroupRequest]:
    """Let the layers of each group vote by one threshold over all layers (network slimming)."""
    cut = threshold([row for g in groups for row in scores[g.id]], options.keep_ratio)
    return {g.id: voted(scores[g.id], cut, options.layer_keep, options.merge) for g in groups}


def layer(groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> dict[str, GroupRequest]:
    """Prune nothing but the layers whose ratios the caller gives."""
    return {}


RULES: dict[str, Rule] = {
    "uniform": uniform,
    "global": global_threshold,
    "normal": normal,
    "regular": normal,
    "shortcut": shortcut,
    "slim": slim,
    "layer": layer,
    "layer_channel": slim,
}


def threshold_of(rule: str, groups: Sequence[Group], scores: LayerScores, options: RuleOptions) -> float | None:
    """The score that decides which channels stay; None for rules without one threshold for all groups."""
    pools: Mapping[str, Callable[[], list[Vector]]] = {
        "global": lambda: list(_relative(groups, scores).values()),
        "normal": lambda: list(_alone(groups, scores, options).values()),
        "regular": lambda: list(_alone(groups, scores, options).values()),
        "shortcut": lambda: [scores[g.id][0] for g in groups],
        "slim": lambda: [row for g in groups for row in scores[g.id]],
        "layer_channel": lambda: [row for g in groups for row in scores[g.id]],
    }
    cut = threshold(pools[rule](), options.keep_ratio) if rule in pools else -np.inf
    return cut if np.isfinite(cut) else None


def threshold(pool: Sequence[Vector], keep_ratio: float) -> float:
    """The score at index N * (1 - keep_ratio) of the pool, ascending; minus infinity for an empty pool."""
    values = np.sort(np.concatenate([*pool, np.zeros(0)]))
    if not values.size:
        return -np.inf
    return float(values[min(int(values.size * (1 - keep_ratio)), values.size - 1)])


def coupled(group: Group, depthwise: frozenset[str]) -> bool:
    """True if several layers that mix channels make the group, as in a residual connection."""
    makers = {m.tensor for m in group.members if m.role == "producer" and m.tensor.endswith("weight")}
    return len(makers - depthwise) > 1


def voted(layers: Vector, cut: float, layer_keep: float, merge: Merge) -> GroupRequest:
    """Each layer votes for its channels above the threshold; merged votes decide, mean scores break ties.

    Args:
        layers: scores [layers, width].
        layer_keep: share of the width that each layer keeps whatever the threshold says, one channel at least.
    """
    floor = max(1, int(layers.shape[1] * layer_keep))
    votes = np.stack([row > cut if (row > cut).sum() >= floor else _best(row, floor) for row in layers])
    chosen, count = merged(votes, merge)
    spread = np.ptp(layers.mean(0)) + TINY
    # Chosen channels come first, whatever their score: their order is lifted above that of all others.
    return GroupRequest(float(count), layers.mean(0) + np.where(chosen, 2 * spread, 0.0))


def merged(votes: Mask, merge: Merge) -> tuple[Mask, int]:
    """The channels that coupled layers keep together, from the votes [layers, width] of each, and their number.

    union: what any layer keeps. intersection: what all keep. least: what the layer that keeps fewest keeps. most: as
    many as the layer that keeps most, those with most votes first.
    """
    counts = votes.sum(1)
    if merge == "intersection":
        chosen: Mask = np.logical_and.reduce(votes)
    elif merge == "least":
        chosen = votes[int(np.argmin(counts))]
    elif merge == "most":
        chosen = _best(votes.sum(0).astype(np.float64), int(counts.max()))
    else:
        chosen = np.logical_or.reduce(votes)
    return chosen, int(chosen.sum())


def _best(row: Vector, count: int) -> Mask:
    chosen = np.zeros(len(row), dtype=np.bool_)
    chosen[np.argsort(-row, kind="stable")[:count]] = True
    return chosen


@dataclass(frozen=True)
class ScoreLimit:
    """The largest threshold that empties no layer, and the share of all channels that it would remove."""

    threshold: float
    removable: float


def suggested_limit(scores: LayerScores) -> ScoreLimit:
    """The largest sensible threshold over all layers (network slimming prints it before it asks for a percentage)."""
    rows = [row for matrix in scores.values() for row in matrix]
    if not rows:
        return ScoreLimit(0.0, 0.0)
    limit = min(float(row.max()) for row in rows)
    pool = np.concatenate(rows)
    return ScoreLimit(limit, float((pool < limit).mean()))
