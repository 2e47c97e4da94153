"""Many forward passes in step, as many at a time as the memory budget allows.

Deep layers need many images, since each gives few positions; early layers of large images need few, and hold the most
memory. So batches join as the maps shrink, catching up through the layers behind, and leave where maps grow again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from math import prod
from operator import attrgetter
from typing import Protocol, TypeVar

from torch import nn

from eightfold.compress.layerwise.layerwise_forward import PausedCall, layer_calls
from eightfold.compress.layerwise.malloc_options import return_freed_memory, share_one_heap
from eightfold.compress.types import Args

# A batch that joins must be able to stay for this many layers: forward passes that come and go cost time.
JOIN_FOR_LAYERS = 16
# Second moments of more inputs (a linear layer behind a large flattened map) would take gigabytes.
INPUTS_AT_MOST = 8192
ROWS_PER_INPUT = 10
ROWS_AT_LEAST = 8192
ROWS_AT_MOST = 32768


class Passing(Protocol):
    """A forward pass that stops at each layer."""

    def close(self) -> Args:
        """Abandon the forward pass; gives its arguments back."""


P = TypeVar("P", bound=Passing)


def in_step(
    start: Callable[[Args, int], P], batches: Sequence[Args], room: Sequence[int]
) -> Iterator[tuple[int, list[P]]]:
    """Yield (layer number, the passes paused before that layer); the caller lets each of them run the layer.

    Args:
        start: begins a pass over one batch and lets it run the first so many layers.
        room: how many passes may be under way at each layer.
    """
    share_one_heap()
    passes: list[P] = []
    waiting = list(batches)
    try:
        for layer in range(len(room)):
            while len(passes) > room[layer]:
                waiting.append(passes.pop().close())
            while waiting and len(passes) < min(room[layer : layer + JOIN_FOR_LAYERS]):
                passes.append(start(waiting.pop(0), layer))
            return_freed_memory()  # what forward passes that caught up have left
            yield layer, passes
            return_freed_memory()  # and what the layer's regression took
    finally:
        for each in passes:
            each.close()


def live_bytes(model: nn.Module, args: Args, norms: Collection[str] = ()) -> list[tuple[str, int]]:
    """For each layer call of a pass, its weight and the memory that activations hold at that moment."""
    # map() drops each call before it asks for the next; a loop variable would keep one more activation alive.
    return list(map(attrgetter("weight", "live_bytes"), layer_calls(model, args, measure=True, norms=norms)))


def inputs_of(call: PausedCall) -> int:
    """Number of weights that make one output of the layer."""
    return call.input.shape[1] // call.geometry.groups * prod(call.geometry.kernel)


def rows_wanted(call: PausedCall) -> int:
    """Number of rows that a regression on this layer's inputs should use."""
    return min(max(ROWS_PER_INPUT * inputs_of(call), ROWS_AT_LEAST), ROWS_AT_MOST)
