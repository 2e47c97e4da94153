"""Ridge regression for layers with more inputs than second moments can hold: a linear layer behind a flattened map has
tens of thousands. The rows are few, so they are kept, and the system is solved in their space."""

from __future__ import annotations

import torch
from torch import Tensor

from eightfold.compress.least_squares.moments import RIDGES, Fit, cholesky_ridge

ROWS_AT_MOST = 2048


class DualRidge:
    """At most `ROWS_AT_MOST` rows of x and y; `fit` solves the normal equations through the rows' inner products."""

    def __init__(self) -> None:
        self.rows = 0
        self._x: list[Tensor] = []
        self._y: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in rows: x [groups, rows, inputs], y [groups, rows, outputs]; those beyond the limit are left out."""
        room = ROWS_AT_MOST - self.rows
        self._x.append(x[:, :room].float())
        self._y.append(y[:, :room].double())
        self.rows += self._x[-1].shape[1]

    def fit(self, prior: Tensor, *, intercept: bool, ridge: float | None = None) -> Fit:
        """The same minimiser as `moments.validated_fit`; as `Regression.fit` when `ridge` is given."""
        x, prior = torch.cat(self._x, 1).double(), prior.double()
        wanted = torch.cat(self._y, 1) - x @ prior
        mean_x = x.mean(1, keepdim=True) if intercept else torch.zeros_like(x[:, :1])
        mean_y = wanted.mean(1, keepdim=True) if intercept else torch.zeros_like(wanted[:, :1])
        x, wanted = x - mean_x, wanted - mean_y
        kernel, inputs = x @ x.mT / x.shape[2], x.shape[2]
        ridge = _validated(kernel, wanted, inputs) if ridge is None else ridge
        change = x.mT @ _dual(kernel, wanted, ridge, inputs) / inputs
        return Fit(prior + change, (mean_y - mean_x @ change).squeeze(1))


def _validated(kernel: Tensor, wanted: Tensor, inputs: int) -> float:
    """The ridge at which the first half of the rows best predicts the second."""
    middle = kernel.shape[1] // 2
    best, least = RIDGES[0], float("inf")
    for ridge in RIDGES if middle else ():
        solved = _dual(kernel[:, :middle, :middle], wanted[:, :middle], ridge, inputs)
        error = float((kernel[:, middle:, :middle] @ solved - wanted[:, middle:]).square().sum())
        if error > least:
            break
        best, least = ridge, error
    return best


def _dual(kernel: Tensor, wanted: Tensor, ridge: float, inputs: int) -> Tensor:
    """The rows' weights a for which x' a / inputs is the ridge solution, from kernel = x x' / inputs.

    mean(diag(kernel)) is the mean variance of an input, as in the primal problem; there it is added to x'x / rows, here
    to x x' / inputs, hence the factor.
    """
    scaled = ridge * kernel.shape[1] / inputs
    solution: Tensor = torch.cholesky_solve(wanted, cholesky_ridge(kernel, scaled))
    return solution
