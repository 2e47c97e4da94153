"""Computes the cost of a plan in multiply-accumulates or parameters from the graph, without surgery.

Each item (a layer, a tensor) has a size that shrinks with the share of its inputs and with the share of its outputs
that stays, so that the cost of many plans, and of every next step from one plan, is a few array operations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from eightfold.compress.plan.selection_rules import Vector
from eightfold.compress.trace.groups import ChannelGraph, Group, Index, Kept


class _Share(NamedTuple):
    """The share of one factor (a dimension) of one item (a layer, a tensor) that belongs to a group."""

    factor: int
    item: int
    group: int
    share: float


def macs_cost(graph: ChannelGraph) -> Cost:
    """Multiply-accumulates of all layers when `kept` stays, for the traced input."""
    shares: list[_Share] = []
    for row, layer in enumerate(graph.layers):
        for factor, places in enumerate((layer.outputs, layer.inputs)):
            if factor == 0 or not layer.depthwise:  # a depthwise layer's inputs are its outputs
                groups, counts = np.unique(places[places[:, 0] >= 0, 0], return_counts=True)
                owned = zip(groups.tolist(), (counts / len(places)).tolist(), strict=True)
                shares += [_Share(factor, row, group, share) for group, share in owned]
    return Cost.of_shares(graph.groups, [layer.macs for layer in graph.layers], shares)


def parameters_cost(graph: ChannelGraph, parameters: Collection[str]) -> Cost:
    """Values in the tensors named `parameters` when `kept` stays."""
    wanted = set(parameters)
    row_of = {name: row for row, name in enumerate(name for name in graph.shapes if name in wanted)}
    shares = (
        _Share(m.dim, row_of[m.tensor], index, len(m.indices()) / graph.shapes[m.tensor][m.dim])
        for index, group in enumerate(graph.groups)
        for m in group.members
        if m.tensor in row_of
    )
    return Cost.of_shares(graph.groups, [prod(graph.shapes[name]) for name in row_of], shares)


@dataclass(frozen=True, eq=False)
class Cost:
    """Sum over items of size times what stays of each of its factors.

    The groups' shares are kept as pairs of a group and an item that it owns a part of."""

    groups: tuple[Group, ...]
    sizes: Vector  # [items]
    group: Index  # [pairs]
    item: Index  # [pairs]
    shares: Vector  # [pairs, factors]: of each factor of the item, what belongs to the group

    @staticmethod
    def of_shares(groups: tuple[Group, ...], sizes: Iterable[int], shares: Iterable[_Share]) -> Cost:
        """Shares of one group in one factor of one item add up."""
        entries = list(shares)
        pairs = {pair: row for row, pair in enumerate(dict.fromkeys((e.group, e.item) for e in entries))}
        table = np.zeros((len(pairs), 1 + max((e.factor for e in entries), default=0)))
        for entry in entries:
            table[pairs[entry.group, entry.item], entry.factor] += entry.share
        group, item = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
        return Cost(groups, np.array(list(sizes), dtype=np.float64), group, item, table)

    def __call__(self, kept: Kept) -> float:
        """The cost when `kept` stays; groups that it does not name stay whole."""
        return float((self.sizes * self._staying(kept).prod(axis=1)).sum())

    def growths(self, kept: Kept, wider: Kept) -> dict[str, float]:
        """For each group of `wider` the cost that it alone would add to `kept`. One pass over the pairs answers for
        all."""
        change = self._gone(kept) - self._gone({**kept, **wider})
        before = self._staying(kept)[self.item]
        after = before + self.shares * change[self.group, None]
        added = self.sizes[self.item] * (after.prod(axis=1) - before.prod(axis=1))
        by_group = np.bincount(self.group, weights=added, minlength=len(self.groups))
        return {g.id: float(growth) for g, growth in zip(self.groups, by_group, strict=True) if g.id in wider}

    def _gone(self, kept: Kept) -> Vector:
        """_Share of each group's channels that is removed: [groups]."""
        return np.array([1 - len(kept[g.id]) / g.width if g.id in kept else 0.0 for g in self.groups])

    def _staying(self, kept: Kept) -> Vector:
        """The share that stays of each factor of each item: [items, factors]."""
        lost = self.shares * self._gone(kept)[self.group, None]
        staying = np.ones((len(self.sizes), self.shares.shape[1]))
        np.subtract.at(staying, self.item, lost)
        return staying
