"""A small, deterministic, resumable training loop: for baselines and for fine-tuning what pruning has cut.

After each epoch the weights, the optimizer's momentum and the epoch's number are written to one safetensors file, so a
run that is killed starts again at the last whole epoch and ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from eightfold.errors import ModelError
from eightfold.extras import require
from eightfold.files import atomic_path
from eightfold.progress import track

Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """SGD with Nesterov momentum under a one-cycle learning rate (linear warm-up over 20%, then cosine to zero).

    Attributes:
        epochs: passes over the data.
        steps_per_epoch: batches in one pass.
        learning_rate: the peak.
        weight_decay: on weights of two or more dimensions; norms and biases have none.
        seed: with the epoch's number, seeds everything random in that epoch.
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float
    weight_decay: float
    seed: int

    def learning_rate_at(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then a cosine to zero."""
        done = step / max(1, self.epochs * self.steps_per_epoch)
        warm_up = 0.2
        if done < warm_up:
            return self.learning_rate * (0.1 + 0.9 * done / warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def train(
    model: nn.Module,
    batches: Callable[[int], Iterator[Batch]],
    loss: Loss,
    schedule: Schedule,
    *,
    checkpoint: Path,
    what: str = "training",
) -> float:
    """Train `model` in place; resume from `checkpoint` if it exists. Returns the last epoch's mean loss.

    Args:
        model: any module that maps inputs to what `loss` takes.
        batches: epoch number -> (inputs, targets), the same batches for the same epoch every time.
        loss: (outputs, targets) -> scalar tensor.
        schedule: see Schedule.
        checkpoint: where the state after each epoch goes. The caller removes it when the result is safe elsewhere.
        what: names the work in the progress line.

    Raises:
        ModelError: the loss became NaN or infinite.
    """
    optimizer = _optimizer(model, schedule)
    first, mean_loss = _resume(model, optimizer, checkpoint)
    for epoch in range(first, schedule.epochs):
        torch.manual_seed(schedule.seed * 10_007 + epoch)
        label = f"{what}, epoch {epoch + 1}/{schedule.epochs}"
        mean_loss = _one_epoch(model, batches(epoch), loss, optimizer, schedule, epoch, label)
        _write_checkpoint(model, optimizer, checkpoint, epoch + 1, mean_loss)
    model.eval()
    return mean_loss


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=0.9, nesterov=True)


def _one_epoch(
    model: nn.Module,
    batches: Iterator[Batch],
    loss: Loss,
    optimizer: torch.optim.SGD,
    schedule: Schedule,
    epoch: int,
    label: str,
) -> float:
    model.train()
    total = torch.zeros(())
    step = epoch * schedule.steps_per_epoch
    for inputs, targets in track(batches, label, total=schedule.steps_per_epoch):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate_at(step)
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(inputs), targets)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        optimizer.step()
        total += value.detach()
        step += 1
    mean = float(total) / schedule.steps_per_epoch
    if not math.isfinite(mean):
        raise ModelError(f"{label}: the loss became {mean}", remedy="lower the learning rate")
    return mean


def _named_momentum(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, torch.Tensor]:
    buffers = {name: optimizer.state[p].get("momentum_buffer") for name, p in model.named_parameters()}
    return {f"momentum.{name}": buffer for name, buffer in buffers.items() if buffer is not None}


def _write_checkpoint(model: nn.Module, optimizer: torch.optim.SGD, path: Path, epochs: int, loss: float) -> None:
    save_file = require("safetensors.torch", "write checkpoints").save_file
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= _named_momentum(model, optimizer)
    tensors["epochs"] = torch.tensor(epochs)
    tensors["loss"] = torch.tensor(loss, dtype=torch.float64)
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(temporary))


def _resume(model: nn.Module, optimizer: torch.optim.SGD, path: Path) -> tuple[int, float]:
    if not path.is_file():
        return 0, math.nan
    tensors = require("safetensors.torch", "read checkpoints").load_file(str(path))
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for name, parameter in model.named_parameters():
        if (buffer := tensors.get(f"momentum.{name}")) is not None:
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return int(tensors["epochs"]), float(tensors["loss"])
