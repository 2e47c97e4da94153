"""Parts of tensors that belong to one group of channels, and sums over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eightfold.compress.trace.groups import Group


@dataclass(frozen=True)
class Slice:
    """The part of a parameter that belongs to a group: places along a dimension, and the channel of each.

    The model may move to another device after a penalty was made, so that indices follow the parameter.
    """

    parameter: nn.Parameter
    dim: int
    places: Tensor
    owners: Tensor

    @property
    def positions(self) -> Tensor:
        """Places along the dimension, on the parameter's device."""
        return self.places.to(self.parameter.device)

    @property
    def channels(self) -> Tensor:
        """The channel of each position, on the parameter's device."""
        return self.owners.to(self.parameter.device)

    def rows(self) -> Tensor:
        """The values."""
        return self.parameter.detach().index_select(self.dim, self.positions)


def mean_step(steps: Mapping[int, float | Tensor], parts: Iterable[Slice]) -> float:
    """One step size for coupled parameters, which adaptive optimizers give each its own."""
    found = [steps[id(part.parameter)] for part in parts if id(part.parameter) in steps]
    return float(sum(float(each.mean()) if isinstance(each, Tensor) else each for each in found)) / max(len(found), 1)


def slices_of(group: Group, tensors: dict[str, nn.Parameter]) -> list[Slice]:
    """The parts of a group's tensors, biases left out."""
    members = [m for m in group.members if m.tensor in tensors and not m.tensor.endswith("bias")]
    return [
        Slice(
            tensors[m.tensor],
            m.dim,
            torch.from_numpy(m.indices()),
            torch.from_numpy(m.channels()),
        )
        for m in members
    ]


def squares_and_counts(width: int, parts: Iterable[Slice]) -> tuple[Tensor, Tensor]:
    """Sum of squares, and number, of the weights of each channel."""
    device = next((part.positions.device for part in parts), torch.device("cpu"))
    squares, counts = torch.zeros(width, device=device), torch.zeros(width, device=device)
    for part in parts:
        rows = part.rows().movedim(part.dim, 0).flatten(1) if part.parameter.dim() > 1 else part.rows()[:, None]
        squares.index_add_(0, part.channels, rows.square().sum(1))
        counts.index_add_(0, part.channels, torch.full_like(rows[:, 0], rows.shape[1]))
    return squares, counts.clamp(min=1)


def add_to(parameter: nn.Parameter, change: Tensor) -> None:
    """Add to the gradient of a parameter."""
    if parameter.grad is None:
        parameter.grad = change
    else:
        parameter.grad.add_(change)
