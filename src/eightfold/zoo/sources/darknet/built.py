"""A layer as it is built: its module, the layers it reads, and the shape of its output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from eightfold.zoo.sources.darknet.cfg import Section

Shape = tuple[int, int, int]
"""(channels, height, width); a flat output of n values is (n, 1, 1)."""


class DarknetLayer(nn.Module):
    """A layer of a cfg file. `forward` takes the outputs of the layers it reads, in their order."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of a `.weights` file that belong to it, in the file's order."""
        return ()


@dataclass(frozen=True)
class Built:
    """One layer. `reads` are layer numbers; -1 is the network's input."""

    section: Section
    module: DarknetLayer
    reads: tuple[int, ...]
    shape: Shape
    head: bool = False


@dataclass(frozen=True)
class Before:
    """The layers before the one that is being built."""

    input: Shape
    layers: tuple[Built, ...]

    @property
    def previous(self) -> Shape:
        return self.layers[-1].shape if self.layers else self.input

    @property
    def last(self) -> int:
        return len(self.layers) - 1

    def shape(self, index: int) -> Shape:
        return self.input if index < 0 else self.layers[index].shape

    def resolve(self, section: Section, key: str) -> tuple[int, ...]:
        """The layers that `key` names: absolute numbers, or negative ones counted back from this layer.

        Raises:
            ModelError: none is named, or one that is not before this layer, or a head.
        """
        if not section.has(key):
            raise section.error(f"[{section.name}] without {key}", allowed=f"{key}= numbers of layers before it")
        return tuple(self._resolved(section, key, value) for value in section.integers(key))

    def _resolved(self, section: Section, key: str, value: int) -> int:
        index = section.index + value if value < 0 else value
        if not 0 <= index < section.index:
            before = f"0 to {section.index - 1}, or -{section.index} to -1" if section.index else "no layer before it"
            raise section.error(f"{key}={value} points to layer {index}, which is missing", key=key, allowed=before)
        if self.layers[index].head:
            name = self.layers[index].section.name
            raise section.error(f"{key}={value} points to the output [{name}]", key=key, allowed="a layer before it")
        return index


Builder = Callable[[Section, Before], Built]
"""Builds the layer of a section. Raises ModelError with its line."""


def in_sequence(section: Section, before: Before, module: DarknetLayer, shape: Shape, *, head: bool = False) -> Built:
    """A layer that reads the one before it."""
    if min(shape) < 1:
        raise section.error(
            f"[{section.name}] leaves {shape[2]}x{shape[1]} of {before.previous[2]}x{before.previous[1]}",
            allowed="at least 1x1",
            remedy="enlarge width and height in [net]",
        )
    return Built(section, module, (before.last,), shape, head)
