"""Selection: from scores and a budget to the channels that stay. Plain numpy; no model, no torch."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from eightfold.compress.plan.selection_rules import (
    MEASURED,
    RULES,
    GroupRequest,
    LayerScores,
    Merge,
    RuleOptions,
    threshold_of,
)
from eightfold.compress.trace.groups import ChannelGraph, Group, Index, Kept
from eightfold.errors import UnknownNameError, UsageError
from eightfold.values import Frozen

Counts = dict[str, int]
Rounding = Literal["nearest", "up", "down"]


class LayerRange(Frozen):
    """A stretch of the network with a threshold of its own, in groups counted in execution order."""

    until: int = Field(ge=1, description="groups before this number, from the end of the range before")
    keep_ratio: float = Field(gt=0, le=1)


class Selection(Frozen):
    """The caller's request: rule, ratios, limits."""

    rule: str = Field(default="uniform", description="a name of RULES")
    keep_ratio: float = Field(default=0.5, gt=0, le=1, description="share of the channels that stays")
    multiple: int = Field(default=8, ge=1, description="every conv and linear width becomes a multiple of this")
    rounding: Rounding | None = Field(default=None, description="of counts; up for the rule regular, else nearest")
    ignore: tuple[str, ...] = Field(default=(), description="groups that stay whole: parameter names, * allowed")
    keep: dict[str, float] = Field(default={}, description="parameter names, * allowed -> keep ratio of their group")
    layer_keep: float = Field(default=0.01, ge=0, le=1, description="slim: least share of a layer")
    merge: Merge = Field(default="union", description="slim: how coupled layers agree")
    ranges: tuple[LayerRange, ...] = Field(default=(), description="a threshold for each stretch of the network")


def select(graph: ChannelGraph, scores: LayerScores, selection: Selection) -> Kept:
    """The coupled channels that stay in every prunable group, in ascending order.

    Counts are multiples of each group's step, at least one step, never above the width.

    Args:
        scores: group id -> [layers, width], for every free group.

    Raises:
        UnknownNameError: no such rule, or a name in `keep` or `ignore` that no layer has.
    """
    if selection.rule not in RULES:
        raise UnknownNameError.of("rule", selection.rule, [*RULES, MEASURED])
    _require_known(graph, selection.ignore)
    groups = prunable(graph, selection)
    requests = {**_by_rule(graph, groups, scores, selection), **_explicit(graph, groups, scores, selection.keep)}
    rounding = selection.rounding or ("up" if selection.rule == "regular" else "nearest")
    counts = {
        group.id: round_count(requests[group.id].count, group, selection.multiple, rounding)
        for group in groups
        if group.id in requests
    }
    return {name: top(requests[name].order, count) for name, count in counts.items()}


def prunable(graph: ChannelGraph, selection: Selection) -> list[Group]:
    """The groups that may shrink to the multiple, without those that the caller ignores."""
    return [group for group in graph.free if group.prunable(selection.multiple) and not _ignored(group, selection)]


def _depthwise(graph: ChannelGraph) -> frozenset[str]:
    return frozenset(layer.weight for layer in graph.layers if layer.depthwise)


def selection_threshold(graph: ChannelGraph, scores: LayerScores, selection: Selection) -> float | None:
    """The score above which channels stay; None where `selection` has no single one."""
    if selection.ranges:
        return None
    options = RuleOptions(selection.keep_ratio, selection.layer_keep, selection.merge, _depthwise(graph))
    return threshold_of(selection.rule, prunable(graph, selection), scores, options)


def round_count(wanted: float, group: Group, multiple: int, rounding: Rounding = "nearest") -> int:
    """`wanted` as a multiple of the group's step: at least one step, never above the width."""
    step = group.step(multiple)
    return int(np.clip(_ROUND[rounding](wanted / step), 1, group.width // step)) * step


_ROUND: Mapping[Rounding, Callable[[float], float]] = {"nearest": round, "up": math.ceil, "down": math.floor}


def top(scores: npt.NDArray[np.float64], count: int) -> Index:
    """Indices of the `count` highest scores, ascending; equal scores keep the lower index."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _by_rule(
    graph: ChannelGraph, groups: Sequence[Group], scores: LayerScores, selection: Selection
) -> dict[str, GroupRequest]:
    """The rule over the whole network, or with each of `ranges` as a pool of its own; beyond the last, all stays."""
    depthwise = _depthwise(graph)
    requests: dict[str, GroupRequest] = {}
    first = 0
    for stretch in selection.ranges or (LayerRange(until=len(groups) + 1, keep_ratio=selection.keep_ratio),):
        options = RuleOptions(stretch.keep_ratio, selection.layer_keep, selection.merge, depthwise)
        requests.update(RULES[selection.rule](groups[first : stretch.until], scores, options))
        first = stretch.until
    return requests


def _explicit(
    graph: ChannelGraph, groups: Sequence[Group], scores: LayerScores, keep: Mapping[str, float]
) -> dict[str, GroupRequest]:
    """Groups whose ratio the caller gave; the last pattern that matches counts."""
    requests: dict[str, GroupRequest] = {}
    for pattern, ratio in keep.items():
        if not 0 < ratio <= 1:
            raise UsageError(f"keep ratio {ratio:g} for {pattern!r}", allowed="above 0, at most 1")
        if not any(matches(group, pattern) for group in graph.groups):
            raise UnknownNameError.of("parameter", pattern, [group.id for group in graph.free])
        for group in groups:
            if matches(group, pattern):
                requests[group.id] = GroupRequest(group.width * ratio, scores[group.id].mean(0))
    return requests


def matches(group: Group, pattern: str) -> bool:
    """True if `pattern` names a parameter that makes the group's channels, or the module that holds it."""
    makers = {group.id, *(member.tensor for member in group.members if member.role == "producer")}
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"{pattern}.weight") for name in makers)


def _require_known(graph: ChannelGraph, ignore: Sequence[str]) -> None:
    """A mistyped name would prune what was to stay. Patterns may be for several networks, but not all for others."""
    matched = {pattern for pattern in ignore if any(matches(group, pattern) for group in graph.groups)}
    unknown = [each for each in ignore if each not in matched and ("*" not in each or not matched)]
    if unknown:
        raise UnknownNameError.of("parameter", unknown[0], [group.id for group in graph.groups])


def _ignored(group: Group, selection: Selection) -> bool:
    return any(matches(group, pattern) for pattern in selection.ignore)
