"""Selection: from scores and a budget to the channels that stay. Plain numpy; no model, no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pydantic import Field

from eightfold.compress.groups import ChannelGraph, Group, Index, Kept, Scores
from eightfold.errors import UnknownNameError
from eightfold.values import Frozen

Counts = dict[str, int]


class Selection(Frozen):
    """What to keep, as the caller asked for it."""

    rule: str = Field(default="uniform", description="a name of RULES")
    keep_ratio: float = Field(default=0.5, gt=0, le=1, description="share of the channels that stays")
    multiple: int = Field(default=8, ge=1, description="every conv and linear width becomes a multiple of this")
    ignore: tuple[str, ...] = Field(default=(), description="groups that stay whole: parameter names, * allowed")


def select(graph: ChannelGraph, scores: Scores, selection: Selection) -> Kept:
    """The coupled channels that stay in every prunable group: the highest-scored ones, in ascending order.

    Counts are multiples of each group's step, at least one step, never above the width; tied groups keep equal counts.
    """
    if selection.rule not in RULES:
        raise UnknownNameError.of("rule", selection.rule, RULES)
    groups = [group for group in graph.free if group.prunable(selection.multiple) and not _ignored(group, selection)]
    wanted = RULES[selection.rule](groups, scores, selection)
    counts = {group.id: round_count(wanted[group.id], group, selection.multiple) for group in groups}
    return {name: top(scores[name], count) for name, count in _equal_ties(graph, counts).items()}


def uniform(groups: list[Group], scores: Scores, selection: Selection) -> dict[str, float]:
    """The same share of every group."""
    return {group.id: group.width * selection.keep_ratio for group in groups}


def global_threshold(groups: list[Group], scores: Scores, selection: Selection) -> dict[str, float]:
    """One threshold for all groups, over scores divided by their group's mean, so that layers are comparable."""
    normal = {group.id: scores[group.id] / max(float(scores[group.id].mean()), 1e-12) for group in groups}
    everything = np.sort(np.concatenate([*normal.values(), np.zeros(0)]))
    if not everything.size:
        return {}
    cut = min(int(everything.size * (1 - selection.keep_ratio)), everything.size - 1)
    return {name: float((values >= everything[cut]).sum()) for name, values in normal.items()}


RULES: dict[str, Callable[[list[Group], Scores, Selection], dict[str, float]]] = {
    "uniform": uniform,
    "global": global_threshold,
}


def round_count(wanted: float, group: Group, multiple: int) -> int:
    """`wanted` rounded to the nearest multiple of the group's step: at least one step, never above the width."""
    step = group.step(multiple)
    return int(np.clip(round(wanted / step), 1, group.width // step)) * step


def top(scores: npt.NDArray[np.float64], count: int) -> Index:
    """Indices of the `count` highest scores, ascending; equal scores keep the lower index."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _ignored(group: Group, selection: Selection) -> bool:
    names = [group.id, *(member.tensor for member in group.members if member.role == "producer")]
    return any(fnmatch.fnmatch(name, pattern) for name in names for pattern in selection.ignore)


def _equal_ties(graph: ChannelGraph, counts: Counts) -> Counts:
    """Tied groups keep the least of their counts; a tie with a member that stays whole stays whole altogether."""
    equal = dict(counts)
    for groups in graph.ties().values():
        for group in groups:
            equal.pop(group.id, None)
        if all(group.id in counts for group in groups):
            least = min(counts[group.id] for group in groups)
            equal.update({group.id: least for group in groups})
    return equal
