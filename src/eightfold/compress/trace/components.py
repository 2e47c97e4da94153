"""From labels and relations to coupled channels and groups. Pure numpy and scipy: no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eightfold.compress.trace.groups import Group, Index, Member, Role, Span
from eightfold.compress.trace.labels import LabelSlot, LabelSpace, Vector
from eightfold.compress.trace.spans import runs
from eightfold.extras import require

Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Components:
    """The coupled channel of every label."""

    of_label: Index  # int64 [labels + 1]; entry 0 stands for "not a channel"
    reason: npt.NDArray[np.int64]  # index into `reasons` per component, -1 when free
    reasons: tuple[str, ...]

    def frozen_for(self, labels: Vector, reasons: tuple[str, ...]) -> bool:
        """True if every label is frozen for a reason that starts with one of `reasons`."""
        numbers = {number for number, text in enumerate(self.reasons) if text.startswith(reasons)}
        return bool(numbers) and bool(np.isin(self.reason[self.of_label[labels]], list(numbers)).all())


def solve(space: LabelSpace) -> Components:
    """Connected components of all relations; the first reason that reached any label of a component freezes it."""
    sparse = require("scipy.sparse", "find coupled channels")
    graph = require("scipy.sparse.csgraph", "find coupled channels")
    none = np.zeros(0, dtype=np.int64)
    left, right = (np.concatenate([*(edge[side] for edge in space.edges), none]) for side in (0, 1))
    ones = np.ones(len(left), dtype=np.int8)
    matrix = sparse.coo_matrix((ones, (left, right)), shape=(space.next, space.next))
    count, component = graph.connected_components(matrix, directed=False)
    reason = np.full(count, -1, dtype=np.int64)
    reasons = tuple(dict.fromkeys(text for _, text in space.frozen))
    number = {text: index for index, text in enumerate(reasons)}
    for labels, text in reversed(space.frozen):
        reason[component[labels]] = number[text]
    return Components(component.astype(np.int64), reason, reasons)


@dataclass(frozen=True)
class Grouping:
    """The groups, and where every label belongs."""

    groups: tuple[Group, ...]
    place: Matrix  # int64 [labels + 1, 2]: group and channel of each label; -1 for label 0

    def places(self, labels: Vector) -> Matrix:
        """Group and channel of each label."""
        return self.place[labels]

    def of_layers(self) -> Grouping:
        """Without the groups that no convolution or linear layer makes or reads, and renumbered."""
        stays = np.array([any(m.role != "channelwise" for m in group.members) for group in self.groups], dtype=bool)
        number = np.append(np.where(stays, np.cumsum(stays) - 1, -1), -1)  # the last entry serves group -1
        group = number[self.place[:, 0]]
        place = np.stack([group, np.where(group < 0, -1, self.place[:, 1])], axis=1)
        return Grouping(tuple(group for group, stay in zip(self.groups, stays, strict=True) if stay), place)


def group_channels(
    space: LabelSpace,
    components: Components,
    roles: Mapping[int, Role],
    widths: Sequence[Vector],
) -> Grouping:
    """Gather the components that touch the same slots equally often into groups.

    Args:
        roles: slot number -> role, for the slots that convolutions and linear layers use.
        widths: the label vectors of all conv and linear inputs and outputs, for the multiplicities.
    """
    slot_of_label = np.repeat(np.arange(len(space.slots)), [slot.size for slot in space.slots])
    component = components.of_label[1:]
    group_of_component = _same_signature(component, slot_of_label, components)
    channel_of_component = _number_channels(component, group_of_component)
    place = np.full((space.next, 2), -1, dtype=np.int64)
    place[1:, 0], place[1:, 1] = group_of_component[component], channel_of_component[component]
    count = int(place[:, 0].max(initial=-1)) + 1
    members = _members(space.slots, place, roles, count)
    multiplicities = _multiplicities(widths, place, count)
    reasons = _reasons(components, group_of_component, count)
    groups = []
    for index in range(count):  # the index of a group in this list is its number in `place`
        width = 1 + max(span.channel + span.length - 1 for member in members[index] for span in member.spans)
        frozen = reasons[index] or _without_producer(members[index])
        groups.append(Group(_name(members[index]), width, tuple(members[index]), multiplicities[index], frozen))
    return Grouping(_unique_ids(groups), place)


def _same_signature(component: Index, slot_of_label: Index, components: Components) -> Index:
    """Group number of each component: components with the same multiset of slots and the same reason share one.

    A multiset is compared by the sum of random 64-bit numbers, one per slot, so that the work is linear.
    """
    generator = np.random.default_rng(0)
    random = generator.integers(1, 2**62, size=int(slot_of_label.max(initial=0)) + 1, dtype=np.uint64)
    code_of_reason = generator.integers(1, 2**62, size=len(components.reasons) + 1, dtype=np.uint64)
    signature = code_of_reason[components.reason]  # -1 picks the last entry: free
    np.add.at(signature, component, random[slot_of_label])
    unseen = np.ones(len(signature), dtype=bool)
    unseen[component] = False  # the component of label 0
    signature[unseen] = 0
    _, first = np.unique(component, return_index=True)
    by_first_label = signature[component[np.sort(first)]]
    seen, first = np.unique(by_first_label, return_index=True)
    number = np.append(np.argsort(np.argsort(first)), -1)  # in the order of their first label; the last entry: unseen
    place = np.searchsorted(seen, signature)
    return np.where(unseen, -1, number[np.minimum(place, len(seen))]).astype(np.int64)


def _number_channels(component: Index, group_of_component: Index) -> Index:
    """Number the components of each group in the order of their first label."""
    unique, first = np.unique(component, return_index=True)
    ordered = unique[np.argsort(first)]
    groups = group_of_component[ordered]
    by_group = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(ordered), dtype=np.int64)
    rank[by_group] = np.arange(len(ordered)) - starts[groups[by_group]]
    channel = np.full(len(group_of_component), -1, dtype=np.int64)
    channel[ordered] = rank
    return channel


def _members(slots: Sequence[LabelSlot], place: Matrix, roles: Mapping[int, Role], count: int) -> list[list[Member]]:
    members: list[list[Member]] = [[] for _ in range(count)]
    cache: dict[bytes, list[tuple[int, tuple[Span, ...]]]] = {}
    for number, slot in enumerate(slots):
        part = place[slot.first : slot.first + slot.size]
        key = part.tobytes()
        if key not in cache:
            cache[key] = runs(part)
        for group, spans in cache[key]:
            members[group].append(Member(slot.tensor, slot.dim, roles.get(number, "channelwise"), spans))
    return members


def _multiplicities(widths: Iterable[Vector], place: Matrix, count: int) -> list[tuple[int, ...]]:
    """Number of positions of each layer width that one channel of a group takes."""
    channels = np.zeros(count, dtype=np.int64)
    np.maximum.at(channels, place[1:, 0], place[1:, 1] + 1)
    found: list[set[int]] = [set() for _ in range(count)]
    for labels in {labels.tobytes(): labels for labels in widths}.values():
        groups, positions = np.unique(place[labels, 0], return_counts=True)
        for group, number in zip(groups.tolist(), positions.tolist(), strict=True):
            if group >= 0:
                found[group].add(max(1, number // int(channels[group])))
    return [tuple(sorted(values)) for values in found]


def _reasons(components: Components, group_of_component: Index, count: int) -> list[str]:
    reasons = [""] * count
    frozen = np.flatnonzero((group_of_component >= 0) & (components.reason >= 0))
    for group, reason in zip(group_of_component[frozen].tolist(), components.reason[frozen].tolist(), strict=True):
        reasons[group] = components.reasons[reason]
    return reasons


def _without_producer(members: Sequence[Member]) -> str:
    return "" if any(member.role == "producer" for member in members) else "no layer produces it"


def _name(members: Sequence[Member]) -> str:
    main = next((member for member in members if member.role == "producer"), members[0])
    start = main.spans[0].start
    return main.tensor if start == 0 else f"{main.tensor}@{start}"


def _unique_ids(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Groups of different dimensions of one tensor would share a name: number the later ones."""
    seen: dict[str, int] = {}
    unique = []
    for group in groups:
        seen[group.id] = seen.get(group.id, 0) + 1
        again = seen[group.id]
        if again > 1:
            fields = {**group.__dict__, "id": f"{group.id}#{again}"}
            group = Group(**{key: fields[key] for key in Group.__dataclass_fields__})
        unique.append(group)
    return tuple(unique)
