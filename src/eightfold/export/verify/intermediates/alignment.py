"""Pairs the tensors of one network with those of another.

Names are no link: exporters fold layers into one another and rename what is left. Values are: what survives an export
has the same ones to many digits. Equal tensors are paired first, in order of computation where several are equal;
then those that share a name; then, between the pairs there are, tensors that are alike. An optimal chain (the heaviest
increasing subsequence of candidate pairs) keeps the order.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from eightfold.export.verify.intermediates.fingerprint import Scan, distances
from eightfold.export.verify.intermediates.probe import Intermediates

# Closer than this and two tensors are the same, whatever the rounding.
SAME = 1e-3
# As near as roundings to 8 bits leave them: a cosine of about 0.98.
ROUNDED = 0.2
# Further apart and they have nothing to do with each other: a cosine of about 0.75.
ALIKE = 0.7
# At this distance a pair counts half of what one of equal tensors does.
HALF_WEIGHT = 0.05
# What the same name adds to that, where the values are alike as well.
NAME_WEIGHT = 2.0
CANDIDATES = 8
# What is computed from a tensor is never so much closer to its like than the tensor itself.
GAIN = 30.0
ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class AlignedPair:
    """Places of a tensor in the first and in the second network.

    Attributes:
        distance: norm of the difference of their samples over the larger norm.
        layout: the transposition of the first that has the second's order; () for none.
        named: they share a name or are outputs, and their values need not be alike.
    """

    first: int
    second: int
    distance: float
    layout: tuple[int, ...] = ()
    named: bool = False


@dataclasses.dataclass(frozen=True)
class _Candidate:
    pair: AlignedPair
    weight: float


def aligned_tensors(first: Scan, second: Scan) -> tuple[AlignedPair, ...]:
    """Pairs of tensors, each in one pair at most, by place in the first network."""
    candidates = list(_candidates(first, second))
    chain = _heaviest_chain([each for each in candidates if each.pair.distance <= SAME])
    found = {pair.first: pair for pair in chain}
    taken = {pair.second for pair in chain}

    def add(pairs: Iterable[AlignedPair]) -> None:
        for pair in pairs:
            if pair.first not in found and pair.second not in taken:
                found[pair.first] = pair
                taken.add(pair.second)

    add(_off_order(candidates, SAME, found, first.inside))
    add(_named(first, second, chain))
    add(_outputs(first, second))
    left = [each for each in candidates if each.pair.first not in found and each.pair.second not in taken]
    add(_heaviest_chain([each for each in left if _fits(each.pair, chain)]))
    add(_off_order(candidates, ROUNDED, found, first.inside))
    return tuple(pair for _, pair in sorted(_likely(found, first.inside).items()))


def _candidates(first: Scan, second: Scan) -> Iterator[_Candidate]:
    """Pairs of the same size and with values alike; of each tensor the few nearest."""
    for mine, others in _same_sizes(first, second):
        far, layouts = distances([first.prints[i] for i in mine], [second.prints[j] for j in others])
        for row, i in enumerate(mine):
            names = [second.inside.tensors[j].name == first.inside.tensors[i].name for j in others]
            for column in np.lexsort((np.logical_not(names), far[row]))[:CANDIDATES]:
                j, distance = others[column], float(far[row, column])
                if distance > ALIKE:
                    break
                layout = first.prints[i].layouts[layouts[row, column]] if layouts[row, column] else ()
                moves = first.inside.tensors[i].moves or second.inside.tensors[j].moves
                favour = NAME_WEIGHT * names[column] + 0.01 * (not moves)
                yield _Candidate(AlignedPair(i, j, distance, layout), favour + 1 / (1 + distance / HALF_WEIGHT))


def _same_sizes(first: Scan, second: Scan) -> Iterator[tuple[list[int], list[int]]]:
    groups: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, each in enumerate((first, second)):
        for place, entry in each.prints.items():
            groups[entry.size][side].append(place)
    return ((mine, others) for mine, others in groups.values() if mine and others)


def _off_order(
    candidates: Sequence[_Candidate], limit: float, known: Mapping[int, AlignedPair], inside: Intermediates
) -> Iterator[AlignedPair]:
    """Pairs within a distance that the chain leaves out, because branches are computed in another order: what stands
    for a tensor comes after what stands for its sources."""
    partner = {place: pair.second for place, pair in known.items()}
    taken, options = set(partner.values()), defaultdict[int, list[AlignedPair]](list)
    left = (each.pair for each in candidates if each.pair.first not in partner and each.pair.second not in taken)
    for pair in _nearest_of_each([pair for pair in left if pair.distance <= limit]):
        options[pair.first].append(pair)
    earliest: list[int] = []
    for place, tensor in enumerate(inside.tensors):
        earliest.append(max((partner.get(source, earliest[source]) for source in tensor.sources), default=-1))
        for pair in options[place] if place not in partner else ():
            if pair.second > earliest[place] and pair.second not in taken:
                partner[place] = pair.second
                taken.add(pair.second)
                yield pair
                break


def _nearest_of_each(pairs: Sequence[AlignedPair]) -> Iterable[AlignedPair]:
    """Of the pairs with one tensor of the second network that of the smallest distance."""
    nearest: dict[int, AlignedPair] = {}
    for pair in sorted(pairs, key=lambda each: (each.distance, each.first)):
        nearest.setdefault(pair.second, pair)
    return nearest.values()


def _named(first: Scan, second: Scan, chain: Sequence[AlignedPair]) -> Iterator[AlignedPair]:
    """Pairs of one name and size that stand in order with the chain: exporters that number their tensors may give the
    same name to unrelated ones."""
    places = {second.inside.tensors[j].name: j for j in second.prints}
    for i, entry in sorted(first.prints.items()):
        j = places.get(first.inside.tensors[i].name)
        if j is not None and second.prints[j].size == entry.size:
            (far,), _ = distances([entry], [second.prints[j]])
            pair = AlignedPair(i, j, float(far[0]), named=True)
            if _fits(pair, chain):
                yield pair


def _outputs(first: Scan, second: Scan) -> Iterator[AlignedPair]:
    """The outputs, in order, where there are as many and they are as large."""
    ends = first.inside.outputs, second.inside.outputs
    if len(ends[0]) != len(ends[1]):
        return
    for i, j in zip(*ends, strict=True):
        if i in first.prints and j in second.prints and first.prints[i].size == second.prints[j].size:
            (far,), _ = distances([first.prints[i]], [second.prints[j]])
            yield AlignedPair(i, j, float(far[0]), named=True)


def _fits(pair: AlignedPair, chain: Sequence[AlignedPair]) -> bool:
    """True if it keeps the order of the chain's pairs."""
    place = bisect_left(chain, pair.first, key=lambda each: each.first)
    before, after = chain[place - 1] if place else None, chain[place] if place < len(chain) else None
    return (before is None or before.second < pair.second) and (after is None or pair.second < after.second)


def _heaviest_chain(candidates: Sequence[_Candidate]) -> list[AlignedPair]:
    """The pairs of the largest total weight that increase on both sides, by a Fenwick tree of the best chain that ends
    at each place of the second network."""
    if not candidates:
        return []
    size = 1 + max(each.pair.second for each in candidates)
    tree: list[tuple[float, int]] = [(0.0, -1)] * (size + 1)
    before = [-1] * len(candidates)
    # Of one tensor's candidates the later ones first, so that none of them follows another.
    order = sorted(range(len(candidates)), key=lambda at: (candidates[at].pair.first, -candidates[at].pair.second))
    last = (0.0, -1)
    for at in order:
        place, best = candidates[at].pair.second, (0.0, -1)
        while place > 0:
            best = max(best, tree[place])
            place &= place - 1
        before[at] = best[1]
        ended = (best[0] + candidates[at].weight, at)
        last = max(last, ended)
        place = candidates[at].pair.second + 1
        while place <= size:
            tree[place] = max(tree[place], ended)
            place += place & -place
    chain, at = list[AlignedPair](), last[1]
    while at >= 0:
        chain.append(candidates[at].pair)
        at = before[at]
    return chain[::-1]


def _likely(found: dict[int, AlignedPair], inside: Intermediates) -> dict[int, AlignedPair]:
    """Without the pairs that are merely alike where what is computed from them is the same: in a network that agrees,
    a layer that was folded into the next one has no like."""
    nearest = [np.inf] * len(inside.tensors)
    kept = {}
    for place in reversed(range(len(inside.tensors))):
        pair = found.get(place)
        distance = np.inf if pair is None else pair.distance
        if pair is not None and (pair.named or distance <= max(SAME, GAIN * max(nearest[place], ROUNDING))):
            kept[place] = pair
        for source in inside.tensors[place].sources:
            nearest[source] = min(nearest[source], nearest[place], distance)
    return kept
