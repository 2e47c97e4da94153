"""Resampling of one axis as a product with a constant matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.arrays import Array

if TYPE_CHECKING:
    import torch


def apply_along(x: torch.Tensor, axis: int, matrix: Array) -> torch.Tensor:
    """`matrix` (new, old) applied to a negative axis of `x`."""
    import torch

    weights = torch.tensor(matrix, dtype=x.dtype, device=x.device)
    if axis == -1:
        return x @ weights.T
    if axis == -2:
        return weights @ x
    sizes = [int(size) for size in x.shape]
    sizes[axis] = len(matrix)
    return (weights @ x.flatten(axis + 1)).reshape(sizes)
