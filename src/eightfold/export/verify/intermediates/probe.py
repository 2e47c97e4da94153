"""Probes the tensors between a network's inputs and outputs, for any kind of network: tensors in order of computation,
the sources of each, and their values as they are computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from eightfold.arrays import Array, Arrays

# Bytes of inner tensors that are asked for in one run.
CHUNK_BYTES = 256 * 2**20
UNKNOWN_BYTES = 4 * 2**20

See = Callable[[int, Array], None]
Key = TypeVar("Key", str, int)


def chunks(keys: Sequence[Key], sizes: Mapping[Key, int], limit: int = CHUNK_BYTES) -> Iterator[list[Key]]:
    """Keys of tensors in order, in lists of at most `limit` bytes or one tensor."""
    chunk, filled = list[Key](), 0
    for key in keys:
        size = sizes.get(key, UNKNOWN_BYTES)
        if chunk and filled + size > limit:
            yield chunk
            chunk, filled = [], 0
        chunk.append(key)
        filled += size
    if chunk:
        yield chunk


@dataclasses.dataclass(frozen=True)
class Intermediate:
    """One tensor that depends on the network's input.

    Attributes:
        name: the layer's or tensor's.
        op: what makes it.
        sources: places of the tensors that it is computed from.
        moves: its values are its source's, at most elsewhere: a reshape, a slice.
    """

    name: str
    op: str
    sources: tuple[int, ...] = ()
    moves: bool = False


@dataclasses.dataclass(frozen=True)
class Intermediates:
    """Tensors in order of computation (a tensor's place is its index), and the places of the network's outputs."""

    tensors: tuple[Intermediate, ...]
    outputs: tuple[int, ...]

    def leading_to_outputs(self) -> frozenset[int]:
        """Places of what the outputs depend on, with themselves."""
        found, left = set[int](), list(self.outputs)
        while left:
            place = left.pop()
            if place not in found:
                found.add(place)
                left += self.tensors[place].sources
        return frozenset(found)


class Probe(Protocol):
    """A network whose inner tensors can be seen."""

    def watch(self, inputs: Arrays, see: See, wanted: Collection[int] | None = None) -> Intermediates:
        """Run the network and call `see(place, array)` for each floating-point tensor, or those at the places wanted.

        Arrays are good during the call only, and never all of them exist at once. Places are the same in every run.
        """


@dataclasses.dataclass(frozen=True)
class Converting:
    """A probe behind a function of its inputs: for networks that take the same images in another form."""

    probe: Probe
    convert: Callable[[Arrays], Arrays]

    def watch(self, inputs: Arrays, see: See, wanted: Collection[int] | None = None) -> Intermediates:
        return self.probe.watch(self.convert(inputs), see, wanted)
