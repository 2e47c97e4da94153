"""Plans that know nothing of latency, to stand beside one that does: the same share of every group, and most importance
for a number of channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eightfold.compress.plan.latency.choices import WidthChoice

STEPS = 40  # of the bisection


def uniform_plan(choices: Sequence[WidthChoice], share: float) -> dict[str, int]:
    """The count of each group that is nearest to a share of its width."""
    return {
        choice.group: min(choice.counts, key=lambda count: abs(count - share * choice.counts[-1])) for choice in choices
    }


def global_plan(choices: Sequence[WidthChoice], share: float) -> dict[str, int]:
    """The counts with the largest sum of values among plans that keep at least a share of all channels: one price for
    every channel, as a threshold over all scores has."""
    wanted = share * sum(choice.counts[-1] for choice in choices)

    def at(price: float) -> dict[str, int]:
        return {
            choice.group: choice.counts[int(np.argmax(np.array(choice.values) - price * np.array(choice.counts)))]
            for choice in choices
        }

    low, high = 0.0, 1e6
    for _ in range(STEPS):
        middle = (low + high) / 2 if high - low > 1 else np.sqrt(max(low, 1e-9) * high)
        low, high = (middle, high) if sum(at(middle).values()) >= wanted else (low, middle)
    return at(low)
