"""Least squares from streamed second moments: rows are added in batches and forgotten; the fit is closed form, float64.

A layer of several convolution groups is a stack of independent regressions, so every array has a leading axis of
groups (1 for an ordinary layer, the number of channels for a depthwise one).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eightfold.errors import ModelError

RIDGE_STEPS = 8
RIDGES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # relative to the mean variance of an input


@dataclass(frozen=True)
class Fit:
    """weight float64 [groups, inputs, outputs], intercept float64 [groups, outputs]: y = x @ weight + intercept."""

    weight: Tensor
    intercept: Tensor


class Moments:
    """Sums of x, y, x'x, x'y and y'y over all rows seen, in float64."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: tuple[Tensor, ...] = ()

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in rows.

        Args:
            x: inputs [groups, rows, inputs], any float dtype.
            y: targets [groups, rows, outputs].
        """
        x, y = x.double(), y.double()
        sums = (x.sum(1), y.sum(1), x.mT @ x, x.mT @ y, y.square().sum(1))
        if self.rows:
            for total, part in zip(self._sums, sums, strict=True):
                total += part
        else:
            self._sums = sums
        self.rows += x.shape[1]

    def __add__(self, other: Moments) -> Moments:
        total = Moments()
        total.rows = self.rows + other.rows
        total._sums = tuple(mine + theirs for mine, theirs in zip(self._sums, other._sums, strict=True))
        return total

    @property
    def input_mean(self) -> Tensor:
        """float64 [groups, inputs]."""
        return self._sums[0] / self.rows

    def centred(self, intercept: bool) -> tuple[Tensor, Tensor, Tensor]:
        """x'x, x'y and y'y per row: of deviations from the mean with an intercept, raw without one."""
        x, y, xx, xy, yy = (total / self.rows for total in self._sums)
        if not intercept:
            return xx, xy, yy
        return xx - x.unsqueeze(2) * x.unsqueeze(1), xy - x.unsqueeze(2) * y.unsqueeze(1), yy - y.square()

    def fit(self, prior: Tensor, *, ridge: float, intercept: bool = True) -> Fit:
        """argmin |x w + b - y|^2 / rows + ridge * mean(diag(x'x)) * |w - prior|^2.

        Args:
            prior: the weights to fall back to where the data says nothing, [groups, inputs, outputs].
            ridge: strength relative to the mean variance of an input; raised tenfold until the system is definite.
            intercept: False for layers that have nowhere to put one.
        """
        prior = prior.double()
        xx, xy, _ = self.centred(intercept)
        change = solve_ridge(xx, xy - xx @ prior, ridge)
        weight = prior + change
        x, y = self._sums[0] / self.rows, self._sums[1] / self.rows
        offset = y - (x.unsqueeze(1) @ weight).squeeze(1)
        return Fit(weight, offset if intercept else torch.zeros_like(offset))

    def squared_error(self, fit: Fit) -> Tensor:
        """Mean squared error of each output under `fit`, float64 [groups, outputs]."""
        x, y, xx, xy, yy = (total / self.rows for total in self._sums)
        made = (x.unsqueeze(1) @ fit.weight).squeeze(1)
        square = yy - 2 * (fit.weight * xy).sum(1) + (fit.weight * (xx @ fit.weight)).sum(1)
        return square + fit.intercept * (fit.intercept + 2 * made - 2 * y)

    def output_variance(self) -> Tensor:
        """float64 [groups, outputs]."""
        return self.centred(intercept=True)[2].clamp(min=0)


def validated_fit(halves: tuple[Moments, Moments], prior: Tensor, *, intercept: bool) -> Fit:
    """Ridge regression on both halves, with the ridge of `RIDGES` at which the first half best predicts the second.

    Validation costs no further pass over the data, since the error on a half follows from its moments. It matters
    where rows are few: a deep layer of a small image has fewer positions than weights. The search walks down from the
    strongest ridge and stops where the error turns.
    """
    total = halves[0] + halves[1]
    if not (halves[0].rows and halves[1].rows):
        return total.fit(prior, ridge=RIDGES[0], intercept=intercept)
    scale = total.output_variance()
    scale = scale + 1e-6 * scale.mean() + torch.finfo(scale.dtype).tiny
    best, least = RIDGES[0], float("inf")
    for ridge in RIDGES:
        fit = halves[0].fit(prior, ridge=ridge, intercept=intercept)
        error = float((halves[1].squared_error(fit) / scale).sum())
        if error > least:
            break
        best, least = ridge, error
    return total.fit(prior, ridge=best, intercept=intercept)


def solve_ridge(gram: Tensor, target: Tensor, ridge: float) -> Tensor:
    """(gram + ridge * mean(diag(gram)) * I)^-1 target, for a stack of symmetric positive semidefinite `gram`."""
    solution: Tensor = torch.cholesky_solve(target, cholesky_ridge(gram, ridge))
    return solution


def cholesky_ridge(gram: Tensor, ridge: float) -> Tensor:
    """Lower Cholesky factors of `gram` plus a ridge on its diagonal: `ridge`, or the least the arithmetic allows."""
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    # A dead input (all its rows constant) has size 0: any positive ridge makes its change 0.
    size = torch.where(size > 0, size, torch.ones_like(size))[..., None, None]
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype)
    for _ in range(RIDGE_STEPS):
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(gram + ridge * size * identity)
        if not failed.any():
            return factor
        ridge = max(10 * ridge, 1e-12)
    raise ModelError("the activations hold NaN or infinity", remedy="check the model and its calibration images")
