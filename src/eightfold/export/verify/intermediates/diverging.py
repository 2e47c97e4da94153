"""Measures the difference of two networks tensor by tensor, and locates its beginning."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError
from eightfold.export.verify.intermediates.alignment import AlignedPair, aligned_tensors
from eightfold.export.verify.intermediates.fingerprint import scan
from eightfold.export.verify.intermediates.probe import CHUNK_BYTES, Intermediate, Intermediates, Probe, chunks
from eightfold.export.verify.verify import (
    Difference,
    Tolerance,
    difference,
    require_within,
)


@dataclasses.dataclass(frozen=True)
class Match:
    """A tensor of the first network, and its counterpart in the second; None without one."""

    inner: Intermediate
    other: Intermediate | None = None
    difference: Difference | None = None


@dataclasses.dataclass(frozen=True)
class Matches:
    """The floating-point tensors of one network and their likes in another.

    Attributes:
        inside: the first network.
        by_place: its tensors by place.
        repeated: places of tensors that hold what their source holds.
    """

    inside: Intermediates
    by_place: dict[int, Match]
    repeated: frozenset[int]

    def beyond(self, tolerance: Tolerance) -> frozenset[int]:
        """Places of what leads to the outputs and is not within the tolerance, nor is anything computed from it.

        The second half is what tells a layer that computes something else from one that was folded into the next.
        """
        fine = set[int]()
        for place in reversed(range(len(self.inside.tensors))):
            match = self.by_place.get(place)
            near = match is not None and match.difference is not None and not match.difference.beyond(tolerance)
            if near or place in fine:
                fine |= {place, *self.inside.tensors[place].sources}
        return frozenset(self.by_place) & self.inside.leading_to_outputs() - fine - self.repeated

    def first_beyond(self, tolerance: Tolerance) -> Match | None:
        """The first tensor, in order of computation, from which on the networks differ by more than the tolerance."""
        place = min(self.beyond(tolerance), default=None)
        return None if place is None else self.by_place[place]


def match_tensors(first: Probe, second: Probe, inputs: tuple[Arrays, Arrays]) -> Matches:
    """Run both networks, each on its inputs, pair their tensors and compare each pair.

    They run once to find the pairs and then once for every few hundred megabytes of tensors to compare.
    """
    scans = scan(first, inputs[0]), scan(second, inputs[1])
    pairs = aligned_tensors(*scans)
    found = {each.first: each for each in pairs}
    measured: dict[int, Difference] = {}
    sizes = {place: 4 * each.size for place, each in scans[0].prints.items()}
    for chunk in chunks([pair.first for pair in pairs], sizes, CHUNK_BYTES):
        measured |= _measured(first, second, inputs, [found[place] for place in chunk], scans[0].inside)
    insides = scans[0].inside, scans[1].inside
    matches = {}
    for place in scans[0].prints:
        pair = found.get(place)
        other = None if pair is None else insides[1].tensors[pair.second]
        matches[place] = Match(insides[0].tensors[place], other, measured.get(place))
    return Matches(insides[0], matches, frozenset(filter(scans[0].repeats_its_source, scans[0].prints)))


def first_diverging(first: Probe, second: Probe, inputs: tuple[Arrays, Arrays], tolerance: Tolerance) -> str:
    """The name of the tensor or layer of the first network from which on the two differ; "" where there is none."""
    match = match_tensors(first, second, inputs).first_beyond(tolerance)
    return match.inner.name if match is not None else ""


def first_not_finite(before: Probe, after: Probe, inputs: Arrays) -> str:
    """The name of the first tensor of `after` that is not finite and was so in `before`; "" where there is none."""
    inside, finite = _finite(before, inputs)
    known = {inside.tensors[place].name: fine for place, fine in finite.items()}
    inside, finite = _finite(after, inputs)
    lost = (_name_before(inside, place, known) for place, fine in sorted(finite.items()) if not fine)
    return next((name for name in lost if known.get(name, True)), "")


def _finite(probe: Probe, inputs: Arrays) -> tuple[Intermediates, dict[int, bool]]:
    """A network's tensors, and by place whether all their values are finite."""
    found: dict[int, bool] = {}
    inside = probe.watch(inputs, lambda place, array: found.__setitem__(place, bool(np.isfinite(array).all())))
    return inside, found


def _name_before(inside: Intermediates, place: int, known: Collection[str]) -> str:
    """The name that a tensor, or what it is moved to, had before: a step may have put casts behind it."""
    own, at = inside.tensors[place].name, place
    while inside.tensors[at].name not in known:
        moved = (later for later in range(at + 1, len(inside.tensors)) if _is_moved(inside.tensors[later], at))
        at = next(moved, -1)
        if at < 0:
            return own
    return inside.tensors[at].name


def _is_moved(tensor: Intermediate, source: int) -> bool:
    return tensor.moves and tensor.sources == (source,)


def _measured(
    first: Probe, second: Probe, inputs: tuple[Arrays, Arrays], pairs: Sequence[AlignedPair], inside: Intermediates
) -> dict[int, Difference]:
    kept: dict[int, Array] = {}
    first.watch(
        inputs[0], lambda place, array: kept.__setitem__(place, np.array(array)), {pair.first for pair in pairs}
    )
    mine = {pair.second: pair for pair in pairs}
    found: dict[int, Difference] = {}

    def see(place: int, array: Array) -> None:
        pair = mine[place]
        before = kept.pop(pair.first)
        before = before.transpose(pair.layout) if pair.layout else before
        name = inside.tensors[pair.first].name
        found[pair.first] = difference(name, before.reshape(-1), np.ascontiguousarray(array).reshape(-1))

    second.watch(inputs[1], see, set(mine))
    return found


def require_alike(
    found: tuple[Difference, ...],
    tolerance: Tolerance,
    *,
    step: str,
    probes: tuple[Probe | None, Probe | None],
    inputs: Arrays,
) -> None:
    """Raise VerificationError where an output is beyond the tolerance, naming the first tensor of the network before
    the step from which on the two differ, or the output where one of them shows no others."""
    if any(item.beyond(tolerance) for item in found):
        require_within(found, tolerance, step=step, first=first_beyond(*probes, inputs, tolerance))


def first_beyond(before: Probe | None, after: Probe | None, inputs: Arrays, tolerance: Tolerance) -> str:
    """The first tensor of `before` from which on the two differ by more; "" where one of them shows no tensors."""
    if before is None or after is None:
        return ""
    try:
        return first_diverging(before, after, (inputs, inputs), tolerance)
    except ModelError:  # some graphs run as a whole only; that the step failed is the news
        return ""
