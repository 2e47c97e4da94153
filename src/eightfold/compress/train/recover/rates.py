"""Learning rates relative to the size of each tensor's values.

Where batch norms are folded, as in exported files, weights of different layers differ a hundredfold in size, and one
rate for all barely moves some and destroys others (compare LARS, You et al. 2017, arXiv:1708.03888).
"""

from __future__ import annotations

from typing import Any

from torch import nn

LEAST_MATRIX, LEAST_VECTOR = 1e-3, 1e-2


def relative_groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """One parameter group for each tensor, its rate `rate` times the root mean square of its values."""
    groups: list[dict[str, Any]] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            size = float(parameter.detach().float().square().mean().sqrt())
            least = LEAST_MATRIX if parameter.dim() > 1 else LEAST_VECTOR
            groups.append({"params": [parameter], "lr": rate * max(size, least)})
    return groups
