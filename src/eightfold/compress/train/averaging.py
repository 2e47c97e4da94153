"""States of a model beside the one that trains: snapshots, the best one, and moving averages."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state that later steps leave alone."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a snapshot back. `load_state_dict` refuses parameters with dots in their own names, as ONNX files give."""
    for name, tensor in model.state_dict().items():
        tensor.copy_(state[name])


@dataclass
class Best:
    """The best value of a check, the step and the state that gave it, and how many checks came after it."""

    value: float = -math.inf
    step: int = 0
    since: int = 0
    state: dict[str, Tensor] | None = None


@contextlib.contextmanager
def holding(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """The model holds `state` meanwhile, then its own again."""
    own = snapshot(model)
    restore(model, state)
    try:
        yield
    finally:
        restore(model, own)


class Average:
    """Moving average of all floating-point values of a model's state; others are taken as they are.

    The decay grows from 0.1 to `decay` over the first steps, so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._values = snapshot(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the current values, after a step."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                self._values[name].lerp_(value, 1 - decay)
            else:
                self._values[name].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs."""
        return {name: value.clone() for name, value in self._values.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state`."""
        for name, value in self._values.items():
            value.copy_(state[name])
