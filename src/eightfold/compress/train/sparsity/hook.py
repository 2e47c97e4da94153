"""Sparse training as a hook of the loop: the penalty, histograms, and a stop when every channel dies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from eightfold.compress.train.hooks import Hook, Run
from eightfold.compress.train.sparsity.history import ScaleHistory
from eightfold.compress.train.sparsity.penalties import Penalty
from eightfold.compress.train.sparsity.proximal import UPDATES, Update
from eightfold.errors import ModelError, UsageError, one_of

SNAPSHOTS = 20  # over a run
LEAST_SIZE = 0.02  # of the largest at the start: a channel below it has died


class Sparsity(Hook):
    """Applies a penalty once per step.

    Attributes:
        update: "proximal" shrinks after the optimizer's step; "subgradient" adds to gradients; by default proximal
            where the penalty has that.
        history: histograms of channel sizes; a resumed run has those of its own part.
    """

    def __init__(self, penalty: Penalty, update: Update | None = None) -> None:
        self.penalty, self.update, self.history = penalty, update_of(penalty, update), ScaleHistory()
        self._guard, self._next = DeathGuard(penalty), 0.0

    def on_start(self, run: Run) -> None:
        require_owned(self.penalty.parameters(), [run.optimizer])
        self.history.add(run.step, self.penalty.magnitudes())

    def after_backward(self, run: Run) -> None:
        if self.update == "proximal":
            self.penalty.before_step(run.progress)
        else:
            self.penalty.add_gradients(run.progress)

    def after_step(self, run: Run) -> None:
        if self.update == "proximal":
            self.penalty.shrink(run.progress, run.optimizer)
        if run.progress >= self._next:
            self._next = run.progress + 1 / SNAPSHOTS
            sizes = self.penalty.magnitudes()
            self.history.add(run.step + 1, sizes)
            self._guard.check(run.step + 1, sizes)

    def tensors(self) -> dict[str, Tensor]:
        return {"largest": torch.tensor(self._guard.largest)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if "largest" in tensors:
            self._guard.largest = float(tensors["largest"])


def update_of(penalty: Penalty, update: Update | None) -> Update:
    """The way in which a penalty acts. Raises UsageError where it has no proximal step."""
    if update is None:
        return "proximal" if penalty.has_proximal else "subgradient"
    one_of("update of a sparsity penalty", update, UPDATES)
    if update == "proximal" and not penalty.has_proximal:
        penalty.before_step(0.0)  # says so
    return update


class DeathGuard:
    """Raises where every channel became a small share of the largest at the start: the penalty beat the loss."""

    def __init__(self, penalty: Penalty) -> None:
        self.largest = _largest(penalty.magnitudes())

    def check(self, step: int, sizes: Mapping[str, Tensor]) -> None:
        """Raises ModelError."""
        now = _largest(sizes)
        if now < LEAST_SIZE * self.largest:
            raise ModelError(
                f"the sparsity penalty took all {sum(len(size) for size in sizes.values())} channels below "
                f"{LEAST_SIZE:.0%} of their start by step {step}: the largest is {now:.2g}, of {self.largest:.2g}",
                allowed="a penalty that leaves some channels",
                remedy="lower s tenfold and start again from the network before sparse training",
            )


def _largest(sizes: Mapping[str, Tensor]) -> float:
    return max(float(size.max()) for size in sizes.values())


def require_owned(parameters: Iterable[nn.Parameter], optimizers: Iterable[Any]) -> None:
    """Raises UsageError where no optimizer holds any of the parameters."""
    held = {id(each) for optimizer in optimizers for group in _groups(optimizer) for each in group["params"]}
    if not any(id(each) in held for each in parameters):
        raise UsageError(
            "the optimizer holds none of the penalized parameters",
            allowed="an optimizer over the parameters of the model that is made sparse",
            remedy="make the optimizer from model.parameters(), after the model has its final device and widths",
        )


def _groups(optimizer: Optimizer) -> list[dict[str, Any]]:
    return optimizer.param_groups
