"""Widths of layers as sums over groups of coupled channels. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from eightfold.compress.trace.groups import ChannelGraph, Index
from eightfold.runtime.bench.profile.layer_shape import LayerShape

Counts = Mapping[str, int]


@dataclass(frozen=True)
class GroupWidth:
    """A number of channels: a constant, and for each group what one kept channel adds.

    >>> GroupWidth(16, {"conv1": 2.0}).at({"conv1": 8})
    32.0
    """

    fixed: float
    groups: Mapping[str, float] = field(default_factory=dict)
    full: Counts = field(default_factory=dict)

    def at(self, counts: Counts) -> float:
        """The width when `counts` channels stay; groups that it does not name stay whole."""
        return self.fixed + sum(
            share * counts.get(group, self.full.get(group, 0)) for group, share in self.groups.items()
        )

    @property
    def whole(self) -> int:
        """The width before pruning."""
        return round(self.at({}))


def width_of(places: Index | None, size: int, graph: ChannelGraph) -> GroupWidth:
    """The width of a dimension of `size` indices whose groups and channels are `places`, [size, 2] or None."""
    if places is None:
        return GroupWidth(float(size))
    numbers, counts = np.unique(places[:, 0], return_counts=True)
    fixed, groups, full = 0.0, dict[str, float](), dict[str, int]()
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        group = graph.groups[number] if number >= 0 else None
        if group is None or group.frozen:
            fixed += count
        else:
            groups[group.id] = count / group.width
            full[group.id] = group.width
    return GroupWidth(fixed, groups, full)


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of a network: its shape, and its widths as functions of the groups."""

    name: str
    shape: LayerShape
    inputs: GroupWidth
    outputs: GroupWidth

    def widths(self, counts: Counts) -> tuple[float, float]:
        """Input and output channels when `counts` stay."""
        return self.inputs.at(counts), self.outputs.at(counts)


def widest(layers: tuple[NetworkLayer, ...]) -> dict[LayerShape, tuple[int, int]]:
    """Of each shape, the largest widths that a network has, in the order of the layers."""
    found: dict[LayerShape, tuple[int, int]] = {}
    for layer in layers:
        inputs, outputs = found.get(layer.shape, (1, 1))
        found[layer.shape] = max(inputs, layer.inputs.whole), max(outputs, layer.outputs.whole)
    return found
