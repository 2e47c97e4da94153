"""A few values of a tensor, at places that depend on its size alone: enough to tell tensors from one another.

512 values of each are held instead of the tensors, so that memory does not grow with the network's activations.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array, Arrays
from eightfold.export.verify.intermediates.probe import Intermediates, Probe

SAMPLES = 512
# Other orders in which another framework may hold the same values: channels last and channels first.
LAYOUTS: dict[int, tuple[tuple[int, ...], ...]] = {3: ((0, 2, 1),), 4: ((0, 2, 3, 1), (0, 3, 1, 2))}
# Stands for what is not finite; its square is finite in float64.
HUGE = 1e60

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Fingerprint:
    """`samples[0]` are values in the tensor's own order, the others as if it had been transposed by `layouts`."""

    size: int
    samples: tuple[Floats, ...]
    layouts: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """Tensors of a network for some inputs, and their fingerprints by place."""

    inside: Intermediates
    prints: dict[int, Fingerprint]

    def repeats_its_source(self, place: int) -> bool:
        """True if a tensor holds the values of the one it is moved from, in the same order: after a reshape it does."""
        tensor = self.inside.tensors[place]
        sources = tensor.sources
        if not tensor.moves or len(sources) != 1 or place not in self.prints or sources[0] not in self.prints:
            return False
        own, source = self.prints[place], self.prints[sources[0]]
        return own.size == source.size and np.array_equal(own.samples[0], source.samples[0])


def scan(probe: Probe, inputs: Arrays) -> Scan:
    """Run a network once and keep the fingerprints of its inner tensors."""
    prints: dict[int, Fingerprint] = {}

    def see(place: int, array: Array) -> None:
        if array.size:
            prints[place] = fingerprint(array)

    return Scan(probe.watch(inputs, see), prints)


def fingerprint(array: Array) -> Fingerprint:
    """Values of `array` in its own layout and in those that other frameworks know."""
    own = tuple(range(array.ndim))
    layouts = (own, *LAYOUTS.get(array.ndim, ()))
    samples = tuple(_sampled(array.transpose(layout)) for layout in layouts)
    return Fingerprint(array.size, samples, layouts)


def _sampled(array: Array) -> Floats:
    """Without flattening it, which copies what is not contiguous."""
    values = array[np.unravel_index(_positions(array.size), array.shape)] if array.ndim else array[None]
    return np.nan_to_num(np.asarray(values, np.float64), nan=HUGE, posinf=HUGE, neginf=-HUGE)


@functools.cache
def _positions(size: int) -> NDArray[np.int64]:
    if size <= SAMPLES:
        return np.arange(size)
    return np.random.default_rng(size).integers(0, size, SAMPLES)


def distances(first: Sequence[Fingerprint], second: Sequence[Fingerprint]) -> tuple[Floats, Array]:
    """Distances of tensors of one size, (first, second): the norm of the difference over the larger norm; and the
    layout of the first that is nearest."""
    layouts = max(len(each.samples) for each in first)
    found = np.stack(
        [_distances([each.samples[min(k, len(each.samples) - 1)] for each in first], second) for k in range(layouts)]
    )
    return found.min(axis=0), found.argmin(axis=0)


def _distances(rows: Sequence[Floats], second: Sequence[Fingerprint]) -> Floats:
    a, b = np.stack(rows), np.stack([each.samples[0] for each in second])
    norms = np.linalg.norm(a, axis=1)[:, None], np.linalg.norm(b, axis=1)[None]
    squares: Floats = np.maximum(norms[0] ** 2 + norms[1] ** 2 - 2 * a @ b.T, 0)
    larger = np.maximum(*norms)
    return np.sqrt(squares) / np.where(larger > 0, larger, 1)
