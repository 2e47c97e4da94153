"""The data model of pruning: coupled channels, the groups they form, and the layers that produce and consume them.

Pure data (numpy only): graphs and groups can be made, printed and tested without torch.

A *coupled channel* is a set of indices, in any number of tensors, that must be removed together: output 3 of a
convolution, entry 3 of its batch norm, input 3 of every consumer, output 3 of whatever is added to it. A *group* is
all coupled channels that touch the same dimensions of the same tensors in the same way, so that a layer sees a group
as a block of interchangeable channels, and pruning a group means to choose which of its channels stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from eightfold.compress.trace.op_trace import OpTrace
from eightfold.errors import UnknownNameError

Index = npt.NDArray[np.int64]
Scores = Mapping[str, npt.NDArray[np.float64]]
"""Group id -> importance of each coupled channel, float64 [group.width]; larger is more important."""
Kept = Mapping[str, Index]
"""Group id -> the coupled channels that stay, int64, ascending, never empty."""

Role = Literal["producer", "consumer", "channelwise"]


class Span(NamedTuple):
    """A run of indices of one tensor dimension: index `start + i * repeat + r` belongs to channel `channel + i`,
    for i in [0, length) and r in [0, repeat).

    >>> Span(start=8, channel=0, length=2, repeat=3).indices().tolist()
    [8, 9, 10, 11, 12, 13]
    """

    start: int
    channel: int
    length: int
    repeat: int = 1

    def indices(self) -> Index:
        """Indices of the span, in the tensor's dimension."""
        return np.arange(self.start, self.start + self.length * self.repeat)

    def channels(self) -> Index:
        """Coupled channel of each index."""
        return np.repeat(np.arange(self.channel, self.channel + self.length), self.repeat)


@dataclass(frozen=True)
class Member:
    """The indices that one group owns in one dimension of one tensor (a parameter or a buffer)."""

    tensor: str  # its name in the model's state dict
    dim: int
    role: Role  # producer: output dimension of a conv/linear; consumer: its input dimension; channelwise: the rest
    spans: tuple[Span, ...]

    def indices(self) -> Index:
        """Positions along `dim` that belong to the group, int64 [n], ascending."""
        return np.concatenate([span.indices() for span in self.spans])

    def channels(self) -> Index:
        """For each of `indices()`, the coupled channel in [0, width) that it belongs to, int64 [n]."""
        return np.concatenate([span.channels() for span in self.spans])

    def removed(self, kept: Index) -> Index:
        """Positions along `dim` to remove when only the coupled channels `kept` stay."""
        channels = self.channels()
        gone = np.ones(max(int(channels.max()), int(kept.max(initial=0))) + 1, dtype=np.bool_)
        gone[kept] = False
        return self.indices()[gone[channels]]


@dataclass(frozen=True)
class Group:
    """A block of interchangeable coupled channels."""

    id: str  # the parameter that produces it first in execution order; "name@8" when the block starts at index 8
    width: int  # number of coupled channels
    members: tuple[Member, ...]
    multiplicities: tuple[int, ...] = (1,)
    """How many positions of a conv or linear width each coupled channel takes: 49 in a linear layer behind a flattened
    7x7 map, 32 behind a convolution of 32 groups. The width that a multiple must divide is kept * multiplicity."""
    frozen: str = ""
    """Why the group must stay whole ("output of the model", "softmax over channels in head.attn", ...); "" if free."""

    def step(self, multiple: int) -> int:
        """The kept count must be a multiple of this, so that every conv and linear width becomes one of `multiple`.

        A wide group inside a grouped convolution keeps a multiple within each convolution group, too: that is the width
        the kernels see. A narrow one (4 channels in each of 32 groups) could not, and aligns the sum.
        """
        if self.width >= 2 * multiple:
            return multiple
        steps = [multiple // gcd(multiple, count) for count in self.multiplicities]
        return int(np.lcm.reduce(steps)) if steps else 1

    def prunable(self, multiple: int) -> bool:
        """True if any aligned count below the width exists."""
        return not self.frozen and self.width > self.step(multiple)

    def members_as(self, role: Role) -> tuple[Member, ...]:
        """Members of one role."""
        return tuple(member for member in self.members if member.role == role)


class Place(NamedTuple):
    """Group and position of one input or output channel of a layer: `graph.groups[group]`, coupled channel `channel`.

    Both are -1 where the position is no prunable channel (the image, for example)."""

    group: int
    channel: int


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One execution of a convolution or a linear layer, in the order in which the model ran them.

    A module that runs twice gives two calls with the same tensor names. For `groups` > 1 the weight's input dimension
    is shorter than `inputs`: input channel c meets weight index c % (C_in / groups) of group c // (C_in / groups).
    """

    op: Literal["conv", "conv_transpose", "linear"]
    module: str  # path of the module whose forward ran it, "" for the model itself; hook this one for statistics
    weight: str
    bias: str  # "" when there is none
    inputs: Index  # int64 [C_in, 2]: a Place for each input channel
    outputs: Index  # int64 [C_out, 2]: a Place for each output channel
    kernel_size: tuple[int, ...] = ()  # () for linear, as stride, padding and dilation
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    macs: int = 0  # multiply-accumulates of this call for the traced input

    @property
    def depthwise(self) -> bool:
        """True if every channel is convolved alone."""
        return self.groups > 1 and self.groups == len(self.inputs)


@dataclass(frozen=True, eq=False)
class NormCall:
    """One execution of a norm whose statistics are over channels that may go, as layer norms are."""

    weight: str  # its scale's name; "" when there is none
    bias: str  # its shift's
    channels: Index  # int64 [C, 2]: a Place for each channel


@dataclass(frozen=True)
class SizeLink:
    """An integer attribute of a module that the forward pass reads as a number of channels.

    The new value is the old one minus the removed indices among `spans` of the groups (group id, spans)."""

    module: str
    attribute: str
    value: int
    parts: tuple[tuple[str, tuple[Span, ...]], ...]


@dataclass(frozen=True)
class ScaleLink:
    """A weight that makes good a mean whose number of channels changes; see `trace.rules.means`.

    It is multiplied by (left / count) ** power, where `left` is the count without the removed indices among `spans` of
    the groups (group id, spans)."""

    tensor: str
    power: float
    count: int
    parts: tuple[tuple[str, tuple[Span, ...]], ...]

    def factor(self, kept: Kept) -> float:
        """The factor for the groups that `kept` names; others stay whole."""
        left = self.count - removed_count(self.parts, kept)
        return float((left / self.count) ** self.power)


def removed_count(parts: Iterable[tuple[str, tuple[Span, ...]]], kept: Kept) -> int:
    """Number of indices among (group id, spans) whose channels go."""
    gone = 0
    for group, spans in parts:
        if group in kept:
            channels = np.concatenate([span.channels() for span in spans])
            gone += int((~np.isin(channels, kept[group])).sum())
    return gone


def removed_indices(cuts: Iterable[tuple[Sequence[Member], Index]]) -> Mapping[tuple[str, int], Index]:
    """(tensor, dim) -> positions to remove, ascending int64, for the members of groups and the channels they keep.

    Places that lose the same positions of the same group share one array."""
    removed: dict[tuple[str, int], list[Index]] = {}
    for members, kept in cuts:
        known: dict[tuple[Span, ...], Index] = {}  # the four vectors of a batch norm share their spans
        for member in members:
            if member.spans not in known:
                known[member.spans] = np.sort(member.removed(kept))
            if known[member.spans].size:
                removed.setdefault((member.tensor, member.dim), []).append(known[member.spans])
    return {place: np.sort(np.concatenate(parts)) if len(parts) > 1 else parts[0] for place, parts in removed.items()}


class Suspect(NamedTuple):
    """A group that the code of a module cut or split by an integer: if the pruned model fails there, that is why."""

    module: str
    code: str  # the module's class: modules of one class share their code
    group: str


@dataclass(frozen=True)
class ChannelGraph:
    """Result of `trace`: every group, the layers in execution order, and the shapes of the traced architecture."""

    groups: tuple[Group, ...]
    layers: tuple[LayerCall, ...]
    shapes: Mapping[str, tuple[int, ...]]  # every parameter and buffer; tied ones by their first name
    norms: tuple[NormCall, ...] = ()
    layer_norms: bool = False  # whether the trace let channels go that a layer norm takes statistics over
    sizes: tuple[SizeLink, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    scales: tuple[ScaleLink, ...] = ()
    trail: OpTrace = field(default_factory=OpTrace, repr=False)
    outputs: tuple[tuple[int, ...], ...] = ()  # shape of every output tensor for the traced input
    data_dependent: bool = False  # an operator (nms, nonzero) made shapes depend on values
    warnings: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()  # parameters that no traced call used

    @cached_property
    def by_id(self) -> Mapping[str, Group]:
        """Groups by id."""
        return {group.id: group for group in self.groups}

    @property
    def free(self) -> tuple[Group, ...]:
        """The groups that are not frozen."""
        return tuple(group for group in self.groups if not group.frozen)

    def group(self, group_id: str) -> Group:
        """The group of that id. Raises UnknownNameError."""
        try:
            return self.by_id[group_id]
        except KeyError:
            raise UnknownNameError.of("group", group_id, self.by_id) from None

    def removed_indices(self, kept: Kept) -> Mapping[tuple[str, int], Index]:
        """(tensor, dim) -> positions to remove, for groups that `kept` names; other groups stay whole."""
        return removed_indices((self.group(name).members, channels) for name, channels in kept.items())

    def describe(self) -> str:
        """Groups by state, and what froze what."""
        frozen = Counter(group.frozen for group in self.groups if group.frozen)
        channels = sum(group.width for group in self.groups)
        free = sum(group.width for group in self.free)
        lines = [f"{len(self.layers)} layers, {len(self.groups)} groups, {free} of {channels} coupled channels free"]
        lines += [f"  frozen ({count} groups): {reason}" for reason, count in frozen.most_common()]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])
