"""Solves the program of a case, and says what stands in the way where no plan fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eightfold.compress.latency.case import Case
from eightfold.compress.latency.side import AIM, least_value
from eightfold.compress.plan.latency.choices import BlockChoice, smallest_counts
from eightfold.compress.plan.latency.prices import WeightedPrices, slowest
from eightfold.compress.plan.latency.program import Solution, solve_program
from eightfold.errors import UsageError


def solved(case: Case, blocks: Sequence[BlockChoice] = ()) -> Solution:
    """The best plan a little below the budget, else at it.

    Raises:
        UsageError: the budget is out of reach; names the fastest that can be reached, and what limits it.
    """
    found = _solved(case, AIM, blocks) or _solved(case, 1.0, blocks)
    if found is None:
        raise _out_of_reach(case)
    return found


def _solved(case: Case, share: float, blocks: Sequence[BlockChoice]) -> Solution | None:
    part = share * case.round_share
    further = [side.limit(part) for side in case.sides if not side.weight]
    if not case.main.weight:
        return solve_program(
            case.choices, case.prices, case.limit_ms * part, further=further, mixed=case.mixed, blocks=blocks
        )
    weighted = [side for side in case.sides if side.weight]
    total = case.main.weight + sum(side.weight for side in weighted)
    parts = ((case.main.weight / case.whole_ms, case.prices), *((s.weight / s.whole, s.prices) for s in weighted))
    share_left = (case.request.budget.share or 1.0) * total * part
    found = solve_program(case.choices, WeightedPrices(parts), share_left, further=further, blocks=blocks)
    return None if found is None else replace(found, predicted_ms=case.prices.network_ms(found.counts))


def _out_of_reach(case: Case) -> UsageError:
    for side in case.sides:
        least = least_value(side, case.choices)
        if not side.weight and least > side.most:
            return UsageError(
                f"a budget of {side.most:.3f} {side.unit} ({side.budget}) of {side.name} is out of reach",
                allowed=f"{least:.3f} {side.unit} ({least / side.whole:.2f}x) or more at channel multiple "
                f"{case.multiple}",
                remedy="raise that budget, lower the multiple, or leave it out",
            )
    counts = smallest_counts(case.choices)
    reached = case.prices.network_ms(counts)
    limits = ", ".join(f"{name} ({ms:.3f} ms)" for name, ms in slowest(case.prices, counts))
    return UsageError(
        f"a latency of {case.limit_ms * case.round_share:.3f} ms ({case.request.budget}) is out of reach",
        allowed=f"{reached:.3f} ms ({reached / case.whole_ms:.2f}x) or more at channel multiple {case.multiple}",
        remedy=f"what limits it: {limits}; raise the budget, lower the multiple, or remove blocks",
    )
