"""Counts that each group may keep, with the importance of each. Pure data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eightfold.compress.trace.groups import Group

Vector = npt.NDArray[np.float64]
MOST_COUNTS = 10  # per group: pairs of them are variables of the program
LEAST_SHARE = 0.125  # of a group's width that stays
FLOOR = 1e-6


@dataclass(frozen=True)
class WidthChoice:
    """The counts that one group may keep.

    Attributes:
        counts: ascending.
        values: importance of each count; larger is better.
        weight: number of layers that read the group.
    """

    group: str
    counts: tuple[int, ...]
    values: tuple[float, ...]
    weight: int = 1

    def value_of(self, count: int) -> float:
        """The importance of a count, between counts linear."""
        return float(np.interp(count, self.counts, self.values))


def allowed_counts(group: Group, multiple: int, block: int = 1, *, most: int = MOST_COUNTS) -> tuple[int, ...]:
    """Multiples of the group's step from an eighth of its width up, evenly thinned to `most`, and the whole width.

    Args:
        block: of the device: where a group has four of them or more, counts are whole blocks, between which nothing is
            gained.
    """
    step = group.step(math.lcm(multiple, block) if group.width >= 4 * block else multiple)
    least = max(1, int(np.ceil(group.width * LEAST_SHARE / step)))
    blocks = np.arange(least, group.width // step + 1)
    if len(blocks) > most:
        blocks = np.unique(np.linspace(blocks[0], blocks[-1], most).round().astype(int))
    return tuple(sorted({*(int(block) * step for block in blocks), group.width}))


def choices_by_score(
    groups: Iterable[Group],
    scores: Mapping[str, Vector],
    multiple: int,
    *,
    block: int = 1,
    fixed: Mapping[str, int] | None = None,
) -> tuple[WidthChoice, ...]:
    """Choices whose value is the logarithm of the share of the score's energy that stays, for each layer that reads it.

    The signal that passes a network is the product of what each of its layers takes in; its logarithm is a sum. So a
    residual stream, which many layers read, counts more than the inside of a block, and a group that loses nearly
    everything costs without bound, however small its scores are.

    Args:
        scores: group id -> [width].
        block: channels that the device works in, see `allowed_counts`.
        fixed: group id -> the count that the caller gave it.
    """
    found = []
    for group in groups:
        whole = (fixed or {}).get(group.id)
        counts = allowed_counts(group, multiple, block) if whole is None else (whole,)
        readers = _readers(group)
        found.append(WidthChoice(group.id, counts, _values(scores[group.id], counts, readers), readers))
    return tuple(found)


def rescored_choices(
    choices: Iterable[WidthChoice], groups: Iterable[Group], scores: Mapping[str, Vector]
) -> tuple[WidthChoice, ...]:
    """The same counts with values by other scores.

    Args:
        scores: group id -> [width].
    """
    by_id = {group.id: group for group in groups}
    return tuple(
        replace(choice, values=_values(np.abs(scores[choice.group]), choice.counts, _readers(by_id[choice.group])))
        for choice in choices
    )


def _readers(group: Group) -> int:
    return max(1, len({member.tensor for member in group.members_as("consumer")}))


def _values(scores: Vector, counts: Iterable[int], readers: int) -> tuple[float, ...]:
    energies = np.sort(np.square(scores))[::-1]
    shares = np.cumsum(energies) / max(float(energies.sum()), FLOOR)
    return tuple(readers * float(np.log(max(shares[count - 1], FLOOR))) for count in counts)


def choices_by_error(
    groups: Iterable[Group], error_at: Mapping[str, Mapping[int, float]], choices: Iterable[WidthChoice]
) -> tuple[WidthChoice, ...]:
    """The same counts with measured output errors as values: less error is better. Groups without errors stay as they
    are."""
    by_group = {choice.group: choice for choice in choices}
    for group in groups:
        if group.id in error_at:
            counts = by_group[group.id].counts
            values = tuple(-error_at[group.id][count] for count in counts)
            by_group[group.id] = WidthChoice(group.id, counts, values)
    return tuple(by_group.values())


@dataclass(frozen=True)
class BlockChoice:
    """A residual block that may go.

    Attributes:
        path: of its module.
        layers: names of its layers, which then cost nothing.
        value: change of importance where it goes; not positive.
    """

    path: str
    layers: frozenset[str]
    value: float


def smallest_counts(choices: Iterable[WidthChoice]) -> dict[str, int]:
    """The least counts of all groups."""
    return {choice.group: min(choice.counts) for choice in choices}
