"""Epochs of SGD on labelled batches: baselines, and fine-tuning after pruning. The steps are those of the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from eightfold.compress.train import loop
from eightfold.compress.train.devices import Devices, as_device
from eightfold.compress.train.hooks import Batch as LoopBatch
from eightfold.compress.train.hooks import Hook
from eightfold.compress.train.log import Log
from eightfold.compress.train.options import LoopOptions
from eightfold.compress.train.schedule import LearningRate
from eightfold.compress.types import Loss

Batch = tuple[torch.Tensor, torch.Tensor]
ONE_CYCLE = LearningRate("onecycle", warm_up=0.2)


@dataclass(frozen=True)
class LearningRateSchedule:
    """SGD with Nesterov momentum under a one-cycle learning rate (linear warm-up over 20%, then cosine to zero).

    Attributes:
        epochs: passes over the data.
        steps_per_epoch: batches in one pass.
        learning_rate: the peak.
        weight_decay: on weights of two or more dimensions; norms and biases have none.
        seed: with the step's number, seeds everything random in that step.
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float
    weight_decay: float
    seed: int

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def train(
    model: nn.Module,
    batches: Callable[[int], Iterator[Batch]],
    loss: Loss,
    schedule: LearningRateSchedule,
    *,
    checkpoint: Path,
    what: str = "training",
    hooks: Sequence[Hook] = (),
    device: str = "cpu",
    log: Log | None = None,
) -> float:
    """Train `model` in place; resume from `checkpoint` if it exists. Returns the mean loss of the last steps.

    Args:
        model: any module that maps inputs to what `loss` takes.
        batches: epoch number -> (inputs, targets), the same batches for the same epoch every time.
        loss: (outputs, targets) -> scalar tensor.
        schedule: see LearningRateSchedule.
        checkpoint: where the state goes meanwhile. The caller removes it when the result is safe elsewhere.
        what: names the work in the progress line.
        hooks: penalties, teachers, quantizers.
        device: "cpu", "cuda" or "auto"; the model is back on the CPU afterwards.
        log: of losses; none by default.

    Raises:
        DivergedError: the loss or a gradient became NaN or infinite.
    """
    options = LoopOptions(steps=schedule.steps, rate=ONE_CYCLE, seed=schedule.seed, what=what)
    batch_at = EpochBatches(batches, schedule.steps_per_epoch)
    done = loop.fit(
        model,
        batch_at,
        _optimizer(model, schedule),
        options,
        loss=loss,
        hooks=hooks,
        checkpoint=checkpoint,
        log=log,
        devices=Devices(as_device(device), "off"),
    )
    model.to("cpu")
    if done.stopped:
        raise KeyboardInterrupt
    return done.loss


@dataclass
class EpochBatches:
    """Numbered batches of a data set that is read epoch by epoch; asked for in order, each is made once."""

    batches: Callable[[int], Iterator[Batch]]
    per_epoch: int
    _next: int = -1
    _open: Iterator[Batch] = field(default_factory=lambda: iter(()))

    def __call__(self, number: int) -> LoopBatch:
        epoch, place = divmod(number, self.per_epoch)
        if number != self._next or place == 0:
            self._open = self.batches(epoch)
            for _ in range(place):
                next(self._open)
        self._next = number + 1
        inputs, target = next(self._open)
        return LoopBatch((inputs,), target)


def _optimizer(model: nn.Module, schedule: LearningRateSchedule) -> torch.optim.SGD:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=0.9, nesterov=True)
