"""Widths of every step of an iterative pruning, from the widths of the ORIGINAL network. No torch.

A ratio that is applied to the width that the step before left rounds down again and again: sixteen steps of 4.24% take
a layer of 64 channels to 26 instead of 32, and one of 16 to 1. Here step k keeps width * keep_ratio^(k / steps),
rounded once. A step in which no aligned width changes joins the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eightfold.compress.plan.select import round_count
from eightfold.compress.trace.groups import Group
from eightfold.errors import UsageError

Counts = dict[str, int]


@dataclass(frozen=True)
class WidthStep:
    """
    Attributes:
        number: of the last step that joined this one, from 1.
        keep_ratio: of the original widths.
        counts: channels of each group that stay.
    """

    number: int
    keep_ratio: float
    counts: Counts


def width_steps(groups: Sequence[Group], *, steps: int, keep_ratio: float, multiple: int = 8) -> tuple[WidthStep, ...]:
    """The steps in which at least one width changes.

    Args:
        groups: those that are pruned.
        keep_ratio: share of the original channels that the last step leaves.

    Raises:
        UsageError: fewer than one step, a ratio outside of (0, 1), or one at which no width changes at all.
    """
    if steps < 1 or not 0 < keep_ratio < 1:
        raise UsageError(
            f"{steps} steps to a keep ratio of {keep_ratio:g}", allowed="1 or more, to above 0 and below 1"
        )
    before = {group.id: group.width for group in groups}
    found: list[WidthStep] = []
    for number in range(1, steps + 1):
        ratio = keep_ratio ** (number / steps)
        counts = {group.id: round_count(group.width * ratio, group, multiple) for group in groups}
        if counts != before:
            found.append(WidthStep(number, ratio, counts))
            before = counts
    if not found:
        raise UsageError(
            f"a keep ratio of {keep_ratio:g} changes no width at a multiple of {multiple}",
            allowed="a smaller ratio or multiple",
        )
    return tuple(found)
