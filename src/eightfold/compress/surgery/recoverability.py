"""Recoverability of residual blocks: how much of a block a linear map of its input can replace.

PRACTISE (Wang and Wu 2023, arXiv:2202.07861) drops a block, puts 1x1 adapters around it that merge into its neighbours,
and trains them briefly. What an adapter can give at best is the least-squares map from the block's input to its branch,
so that the share of the output that this map leaves unexplained ranks blocks without training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eightfold.compress.least_squares.moments import Moments

ROWS = 2048  # positions of one batch
RIDGE = 1e-6


def branch_moments(x: Tensor, branch: Tensor, channel_dim: int) -> Moments:
    """Moments of a sample of positions: inputs and branch outputs of a block, with channels in `channel_dim`."""
    rows = [tensor.movedim(channel_dim, -1).flatten(0, -2) for tensor in (x, branch)]
    step = max(1, len(rows[0]) // ROWS)
    moments = Moments()
    moments.add(*(each[::step].unsqueeze(0) for each in rows))
    return moments


def unexplained_energy(parts: Sequence[Moments]) -> float:
    """Mean square, over positions and channels, of what the best affine map of the input leaves of the branch."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    regression = total.regression()
    prior = torch.zeros_like(regression.xy)
    return float(regression.squared_error(regression.fit(prior, ridge=RIDGE)).clamp(min=0).mean())
