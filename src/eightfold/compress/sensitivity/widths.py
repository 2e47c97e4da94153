"""Chooses widths by measured output error: the least error for a number of multiply-accumulates.

Errors of groups are taken to add up. From the whole network, the step that costs least error for the multiply-
accumulates that it saves is taken until the budget holds; steps over several widths at once pass flat stretches. The
last step often saves more than it must: what is left of the budget is given back where it lowers the error most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eightfold.compress.plan.costs import Cost
from eightfold.compress.plan.select import top
from eightfold.compress.sensitivity.output_error import Curve
from eightfold.compress.trace.groups import Group, Index, Kept
from eightfold.errors import UsageError

STEPS_AHEAD = 6
LEAST_SHARE = 0.125  # of a group's width: beyond it, errors no longer add up


def kept_for_cost(
    groups: Sequence[Group], curves: Mapping[str, Curve], cost: Cost, most: float, *, multiple: int, fixed: Kept
) -> dict[str, Index]:
    """The channels that stay, at most `most` in `cost`, with the least sum of errors that single steps find.

    Args:
        groups: those whose width may change; each has a curve.
        fixed: channels of other groups that stay.

    Raises:
        UsageError: the smallest widths cost more.
    """
    counts = {group.id: group.width for group in groups}
    ladders = {group.id: _ladder(group, multiple) for group in groups}
    kept: dict[str, Index] = dict(fixed)
    spent = cost(kept)
    while spent > most:
        step = _best_step(ladders, curves, cost, counts, kept)
        if step is None:
            raise UsageError(
                f"a budget of {most:.4g} is out of reach",
                allowed=f"{spent:.4g} or more: an eighth of each group stays",
                remedy="keep more, or prune what is left by another rule afterwards",
            )
        name, count = step
        counts[name] = count
        kept[name] = np.arange(count)
        spent = cost(kept)
    while (wider := _best_return(ladders, curves, cost, counts, kept, most - spent)) is not None:
        name, count = wider
        counts[name] = count
        kept[name] = np.arange(count)
        spent = cost(kept)
    chosen = {name: top(curves[name].order, count) for name, count in counts.items()}
    return {**fixed, **chosen}


def _ladder(group: Group, multiple: int) -> tuple[int, ...]:
    step = group.step(multiple)
    least = max(step, int(np.ceil(group.width * LEAST_SHARE / step)) * step)
    return tuple(range(group.width // step * step, least - 1, -step))


def _best_step(
    ladders: Mapping[str, tuple[int, ...]],
    curves: Mapping[str, Curve],
    cost: Cost,
    counts: Mapping[str, int],
    kept: Kept,
) -> tuple[str, int] | None:
    """The group and its new width with the least error for what is saved."""
    best, least = None, np.inf
    for ahead in range(STEPS_AHEAD):
        narrower = {
            name: below[ahead]
            for name, ladder in ladders.items()
            if len(below := [count for count in ladder if count < counts[name]]) > ahead
        }
        if not narrower:
            break
        savings = cost.growths(kept, {name: np.arange(count) for name, count in narrower.items()})
        for name, count in narrower.items():
            saved = max(-savings[name], 1e-9)
            ratio = (curves[name].at(count) - curves[name].at(counts[name])) / saved
            if ratio < least:
                best, least = (name, count), ratio
    return best


def _best_return(
    ladders: Mapping[str, tuple[int, ...]],
    curves: Mapping[str, Curve],
    cost: Cost,
    counts: Mapping[str, int],
    kept: Kept,
    left: float,
) -> tuple[str, int] | None:
    """The group and its new width that lower the error most for what they cost, at most `left`."""
    best, most = None, 0.0
    for ahead in range(STEPS_AHEAD):
        wider = {
            name: above[-1 - ahead]
            for name, ladder in ladders.items()
            if len(above := [count for count in ladder if count > counts[name]]) > ahead
        }
        if not wider:
            break
        growths = cost.growths(kept, {name: np.arange(count) for name, count in wider.items()})
        for name, count in wider.items():
            gain = curves[name].at(counts[name]) - curves[name].at(count)
            if growths[name] <= left and gain > most * max(growths[name], 1e-9):
                best, most = (name, count), gain / max(growths[name], 1e-9)
    return best
