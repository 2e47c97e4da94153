"""Hooks of the training loop: what penalties, teachers, quantizers and masks do in a step.

A hook adds loss terms, changes how the forward pass runs, changes gradients, or corrects weights after a step. The
loop calls hooks in the order in which they are given, and keeps their tensors in its checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Batch:
    """One forward call's positional arguments, and what the loss compares its output with."""

    inputs: tuple[Any, ...]
    target: Any = None


@dataclass
class Run:
    """The state of a training run that hooks may look at.

    Attributes:
        model: the network that trains.
        optimizer: its parameter groups hold "lr" (now) and "peak" (at the top of the schedule).
        step: optimizer steps done.
        elapsed_s: seconds spent in steps, earlier runs of a resumed one counted in.
        progress: share of the run that is done, in [0, 1].
    """

    model: nn.Module
    optimizer: Optimizer
    step: int = 0
    elapsed_s: float = 0.0
    progress: float = 0.0


class Hook:
    """Takes part in a training step; each method does nothing unless it is overridden."""

    def on_start(self, run: Run) -> None:
        """Before the first step, after a checkpoint was read."""

    @contextlib.contextmanager
    def around_forward(self, run: Run, batch: Batch) -> Iterator[None]:
        """Around the forward pass of the model: a quantizer replaces weights here, a teacher records features."""
        yield

    def terms(self, run: Run, batch: Batch, outputs: Any) -> Mapping[str, Tensor]:
        """Named scalar losses that are added to the others."""
        return {}

    def after_backward(self, run: Run) -> None:
        """Before gradients are clipped: a penalty adds its subgradient here."""

    def after_step(self, run: Run) -> None:
        """After the optimizer: a mask sets pruned weights to zero again."""

    def tensors(self) -> dict[str, Tensor]:
        """State for the checkpoint, by name."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """State from a checkpoint, as `tensors` gave it."""
