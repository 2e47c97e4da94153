"""Two plans: how they differ, and how one made on an already pruned network joins the one before it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eightfold.compress.plan.plan import GroupPlan, PrunePlan, raise_first_difference
from eightfold.compress.trace.groups import Index, Member, ScaleLink, SizeLink, Span
from eightfold.compress.trace.spans import runs

Place = tuple[str, int]


@dataclass(frozen=True)
class PlanDiff:
    """Differences between two plans for the same architecture."""

    lines: tuple[str, ...]

    def describe(self) -> str:
        """Text for a person, one line a difference."""
        return "\n".join(self.lines) if self.lines else "the plans keep the same channels"


def diff_plans(first: PrunePlan, second: PrunePlan) -> PlanDiff:
    """Settings and groups in which `second` differs from `first`.

    Raises:
        PlanMismatchError: they belong to different architectures; names the first tensor that differs.
    """
    remedy = "compare plans of one architecture"
    raise_first_difference(first.shapes, second.shapes, what="the first plan", remedy=remedy)
    settings = ("rule", "score", "budget", "multiple")
    lines = [f"{name}: {getattr(first, name)} -> {getattr(second, name)}" for name in settings]
    changed = [line for line in lines if len(set(line.partition(": ")[2].split(" -> "))) > 1]
    a, b = ({group.id: group for group in plan.groups} for plan in (first, second))
    for name in dict.fromkeys([*a, *b]):
        changed += _group_line(name, a.get(name), b.get(name))
    gone = {block.path for block in first.removed_blocks} ^ {block.path for block in second.removed_blocks}
    return PlanDiff((*changed, *(f"block {path}: removed in one of them only" for path in sorted(gone))))


def _group_line(name: str, first: GroupPlan | None, second: GroupPlan | None) -> list[str]:
    width = (first or second).width  # type: ignore[union-attr]  # the name came from one of the two
    whole = tuple(range(width))
    a, b = first.kept if first else whole, second.kept if second else whole
    if a == b:
        return []
    common = len(set(a) & set(b))
    return [f"{name}: keeps {len(a)} -> {len(b)} of {width}, {common} in common"]


def merge_plans(first: PrunePlan, second: PrunePlan) -> PrunePlan:
    """One plan against the original architecture for `first`, then `second` made on the network that `first` left.

    Raises:
        PlanMismatchError: `second` was not made for the result of `first`.
    """
    remedy = "merge a plan with one that was made after it had been applied"
    raise_first_difference(first.pruned_shapes(), second.shapes, what="the first plan's result", remedy=remedy)
    original = _original_positions(first)
    groups = {group.id: group for group in first.groups}
    owner = _owners(first)
    renamed: dict[str, tuple[str, Index]] = {}
    for group in second.groups:
        older = _older(group, original, owner)
        if older is None:
            moved = _moved(group, original)
            groups[moved.id] = moved
            renamed[group.id] = (moved.id, np.arange(group.width))
        else:
            name, channels = older
            kept = tuple(sorted(channels[list(group.kept)].tolist()))
            groups[name] = groups[name].model_copy(update={"kept": kept})
            renamed[group.id] = (name, channels)
    return first.model_copy(
        update={
            "groups": tuple(groups.values()),
            "sizes": _sizes(first, second, renamed),
            "scales": _scales(first, second, renamed),
            "removed_blocks": (*first.removed_blocks, *second.removed_blocks),
            "budget": "; then ".join(text for text in (first.budget, second.budget) if text),
            "rule": second.rule,
            "score": second.score,
            "scores_digest": second.scores_digest,
        }
    )


def _original_positions(plan: PrunePlan) -> Mapping[Place, Index]:
    """(tensor, dim) -> the original index of each index that is left."""
    removed = plan.removed_indices()
    return {place: np.delete(np.arange(plan.shapes[place[0]][place[1]]), gone) for place, gone in removed.items()}


def _owners(plan: PrunePlan) -> Mapping[Place, Mapping[int, tuple[str, int]]]:
    """(tensor, dim) -> original index -> (group, channel)."""
    owners: dict[Place, dict[int, tuple[str, int]]] = {}
    for group in plan.groups:
        for member in group.members:
            places = owners.setdefault((member.tensor, member.dim), {})
            for index, channel in zip(member.indices().tolist(), member.channels().tolist(), strict=True):
                places[index] = (group.id, channel)
    return owners


def _older(
    group: GroupPlan, original: Mapping[Place, Index], owners: Mapping[Place, Mapping[int, tuple[str, int]]]
) -> tuple[str, Index] | None:
    """The group of the first plan that `group` is what is left of, and the channel there of each of its channels."""
    member = group.members[0]
    place = (member.tensor, member.dim)
    if place not in original:
        return None
    found = [owners[place].get(int(index)) for index in original[place][member.indices()]]
    if found[0] is None:
        return None
    channels = np.zeros(group.width, dtype=np.int64)
    for channel, owner in zip(member.channels().tolist(), found, strict=True):
        channels[channel] = owner[1] if owner else -1
    return found[0][0], channels


def _moved(group: GroupPlan, original: Mapping[Place, Index]) -> GroupPlan:
    """A group that the first plan left whole, in the original's positions."""
    members = tuple(_move(member, original) for member in group.members)
    start = members[0].spans[0].start
    name = group.id.partition("@")[0]
    number = group.id.partition("#")[2]
    name = name.partition("#")[0] + (f"@{start}" if start else "") + (f"#{number}" if number else "")
    return group.model_copy(update={"id": name, "members": members})


def _move(member: Member, original: Mapping[Place, Index]) -> Member:
    place = (member.tensor, member.dim)
    if place not in original:
        return member
    positions, channels = original[place][member.indices()], member.channels()
    table = np.full((int(positions[-1]) + 1, 2), -1, dtype=np.int64)
    table[positions] = np.stack([np.zeros_like(channels), channels], axis=1)
    return Member(member.tensor, member.dim, member.role, dict(runs(table))[0])


def _sizes(first: PrunePlan, second: PrunePlan, renamed: Mapping[str, tuple[str, Index]]) -> tuple[SizeLink, ...]:
    known = {(link.module, link.attribute): link for link in first.sizes}
    for link in second.sizes:
        if (link.module, link.attribute) not in known:
            parts = tuple(_renamed(part, renamed) for part in link.parts)
            known[link.module, link.attribute] = SizeLink(link.module, link.attribute, link.value, parts)
    return tuple(known.values())


def _scales(first: PrunePlan, second: PrunePlan, renamed: Mapping[str, tuple[str, Index]]) -> tuple[ScaleLink, ...]:
    known = {link.tensor: link for link in first.scales}
    for link in second.scales:
        if link.tensor not in known:
            parts = tuple(_renamed(part, renamed) for part in link.parts)
            known[link.tensor] = ScaleLink(link.tensor, link.power, link.count, parts)
    return tuple(known.values())


def _renamed(
    part: tuple[str, tuple[Span, ...]], renamed: Mapping[str, tuple[str, Index]]
) -> tuple[str, tuple[Span, ...]]:
    group, spans = part
    if group not in renamed:
        return part
    name, channels = renamed[group]
    singles = [channels[span.channels()] for span in spans]
    return name, tuple(Span(i, int(c), 1) for i, c in enumerate(np.concatenate(singles).tolist()))
