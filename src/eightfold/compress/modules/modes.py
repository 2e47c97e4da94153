"""States of a model that a piece of work needs for a while, and that are put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def gradients_of(model: nn.Module) -> Iterator[None]:
    """Gradients for every parameter, none at the start; the parameters' own gradients and flags afterwards."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    for parameter, _, _ in before:
        parameter.requires_grad_(True)
        parameter.grad = None
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter, wanted, gradient in before:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
