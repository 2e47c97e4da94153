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
        both = zip(self._sums or other._sums, other._sums or self._sums, strict=True)
        total._sums = tuple(a + b if self.rows and other.rows else a for a, b in both)
        return total

    def regression(self, *, intercept: bool = True) -> Regression:
        """Everything per row: deviations from the mean with an intercept, raw moments without one."""
        x, y, xx, xy, yy = (total / self.rows for total in self._sums)
        if not intercept:
            return Regression(torch.zeros_like(x), torch.zeros_like(y), xx, xy, yy)
        # In place: second moments of wide layers are the largest tensors here.
        xx.baddbmm_(x.unsqueeze(2), x.unsqueeze(1), alpha=-1)
        xy.baddbmm_(x.unsqueeze(2), y.unsqueeze(1), alpha=-1)
        return Regression(x, y, xx, xy, yy - y.square())


@dataclass(frozen=True)
class Regression:
    """Means of x and y, and covariances: xx [groups, inputs, inputs], xy [groups, inputs, outputs], yy's diagonal."""

    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    def fit(self, prior: Tensor, *, ridge: float) -> Fit:
        """argmin |x w + b - y|^2 / rows + ridge * mean(diag(xx)) * |w - prior|^2; b is 0 without an intercept.

        Args:
            prior: the weights to fall back to where the data says nothing, [groups, inputs, outputs].
            ridge: strength relative to the mean variance of an input; raised tenfold until the system is definite.
        """
        prior = prior.double()
        change = torch.cholesky_solve(self.xy - self.xx @ prior, cholesky_ridge(self.xx, ridge))
        weight = prior + change
        return Fit(weight, self.y - (self.x.unsqueeze(1) @ weight).squeeze(1))

    def squared_error(self, fit: Fit) -> Tensor:
        """Mean squared error of each output under `fit`, float64 [groups, outputs]."""
        around_mean = self.yy + (fit.weight * (self.xx @ fit.weight - 2 * self.xy)).sum(1)
        return around_mean + (self.y - (self.x.unsqueeze(1) @ fit.weight).squeeze(1) - fit.intercept).square()


class HalvedMoments:
    """Moments of the first and the second half of each batch's rows, so that the halves can validate each other.

    Rows are ordered by image, so the halves are of different images.
    """

    def __init__(self) -> None:
        self.halves = Moments(), Moments()

    @property
    def rows(self) -> int:
        """Number of rows in both halves."""
        return self.halves[0].rows + self.halves[1].rows

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in rows: x [groups, rows, inputs], y [groups, rows, outputs]."""
        middle = x.shape[1] // 2
        for moments, part in zip(self.halves, (slice(0, middle), slice(middle, None)), strict=True):
            if x[:, part].shape[1]:
                moments.add(x[:, part], y[:, part])

    def fit(self, prior: Tensor, *, intercept: bool) -> Fit:
        """Ridge regression on all rows, with the ridge of `RIDGES` at which the first half best predicts the second.

        Validation costs no further pass over the data, since the error on a half follows from its moments. It matters
        where rows are few: a deep layer of a small image has fewer positions than weights. The search walks down from
        the strongest ridge and stops where the error turns.
        """
        ridge = self._ridge(prior, intercept) if self.halves[0].rows and self.halves[1].rows else RIDGES[0]
        return (self.halves[0] + self.halves[1]).regression(intercept=intercept).fit(prior, ridge=ridge)

    def _ridge(self, prior: Tensor, intercept: bool) -> float:
        seen, held_out = (half.regression(intercept=intercept) for half in self.halves)
        scale = held_out.yy.clamp(min=0) + 1e-6 * held_out.yy.mean().clamp(min=1e-30)
        best, least = RIDGES[0], float("inf")
        for ridge in RIDGES:
            error = float((held_out.squared_error(seen.fit(prior, ridge=ridge)) / scale).sum())
            if error > least:
                break
            best, least = ridge, error
        return best


def cholesky_ridge(gram: Tensor, ridge: float) -> Tensor:
    """Lower Cholesky factors of `gram` plus a ridge on its diagonal: `ridge`, or the least the arithmetic allows."""
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    # A dead input (all its rows constant) has size 0: any positive ridge makes its change 0.
    size = torch.where(size > 0, size, torch.ones_like(size))
    for _ in range(RIDGE_STEPS):
        loaded = gram.clone()
        loaded.diagonal(dim1=-2, dim2=-1).add_(ridge * size)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(loaded)
        if not failed.any():
            return factor
        ridge = max(10 * ridge, 1e-12)
    raise ModelError("the activations hold NaN or infinity", remedy="check the model and its calibration images")
