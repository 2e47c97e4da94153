"""Labels: one integer per index of every tensor dimension that could be pruned, and the relations found between them.

A tensor carries a dictionary from dimension to an int64 vector as long as that dimension; dimensions that are not
listed hold no channels. Labels never have the size of an activation, so tracing costs what the channels cost.
Label 0 means "not a channel". Relations are collected as they are seen and solved once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Vector = npt.NDArray[np.int64]
Axes = dict[int, Vector]

# Labels travel as an attribute of the tensor object: it lives exactly as long as the tensor, views get their own.
_ATTRIBUTE = "_eightfold_axes"


@dataclass(frozen=True)
class LabelSlot:
    """One dimension of one parameter or buffer; its labels are [first, first + size)."""

    tensor: str
    dim: int
    first: int
    size: int


class LabelSpace:
    """Hands out labels and collects what is known about them."""

    def __init__(self) -> None:
        self.slots: list[LabelSlot] = []
        self.next = 1
        self.edges: list[tuple[Vector, Vector]] = []  # labels at equal positions are coupled
        self.frozen: list[tuple[Vector, str]] = []
        self._seen: dict[tuple[int, int], tuple[Vector, Vector]] = {}

    def add_slots(self, name: str, shape: Iterable[int]) -> Axes:
        """Label every dimension of the tensor `name` that has more than one index."""
        axes: Axes = {}
        for dim, size in enumerate(shape):
            if size > 1:
                self.slots.append(LabelSlot(name, dim, self.next, size))
                axes[dim] = np.arange(self.next, self.next + size)
                self.next += size
        return axes

    def unite(self, left: Vector, right: Vector, reason: str) -> None:
        """Labels at equal positions are coupled. A channel that meets "not a channel" is frozen for `reason`."""
        if left is right or self._known(left, right):
            return
        if not (left.all() and right.all()):
            both = (left > 0) & (right > 0)
            self.freeze(np.where(both, 0, np.maximum(left, right)), reason)
            left, right = left[both], right[both]
        self.edges.append((left, right))

    def unite_rows(self, table: npt.NDArray[np.int64], reason: str) -> None:
        """Couple the entries of each column of `table` [rows, columns]."""
        for row in table[1:]:
            self.unite(np.ascontiguousarray(table[0]), np.ascontiguousarray(row), reason)

    def freeze(self, labels: Vector, reason: str) -> None:
        """Freeze labels for a reason; zeros are no labels."""
        labels = labels[labels > 0]
        if labels.size:
            self.frozen.append((labels, reason))

    def _known(self, left: Vector, right: Vector) -> bool:
        key = (id(left), id(right))
        if key in self._seen:
            return True
        self._seen[key] = (left, right)  # holding them keeps their ids from being reused
        return False


def axes_of(tensor: object) -> Axes:
    """The labels that `tensor` carries; an empty dictionary when it holds no channels."""
    axes: Axes = getattr(tensor, _ATTRIBUTE, {})
    return axes


def set_axes(tensor: torch.Tensor, axes: Mapping[int, Vector]) -> None:
    """Attach labels to the dimensions of a tensor."""
    setattr(tensor, _ATTRIBUTE, dict(axes))


def clear_axes(tensor: torch.Tensor) -> None:
    """Remove a tensor's labels."""
    if hasattr(tensor, _ATTRIBUTE):
        delattr(tensor, _ATTRIBUTE)
