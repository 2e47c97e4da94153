"""Trains detectors: burn-in, three parameter groups, accumulation to a nominal batch of 64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD

from eightfold.compress.train.devices import Devices, as_device
from eightfold.compress.train.hooks import Hook, Run
from eightfold.compress.train.log import Log
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions, Trained
from eightfold.compress.train.schedule import LearningRate
from eightfold.export.verify.module_runs import output_tensors
from eightfold.tasks.detection.anchor_loss import AnchorLoss
from eightfold.tasks.detection.batches import DetectionBatches
from eightfold.tasks.detection.losses import MapLoss

MOMENTUM, FIRST_MOMENTUM = 0.937, 0.9
FIRST_BIAS_RATE = 0.1
COSINE = LearningRate("cosine", warm_up=0.0, floor=0.05)


class UnmatchedWarning(UserWarning):
    """Ground truths that no anchor matches well, or that augmentation cut away."""


@dataclass(frozen=True)
class DetectionTraining:
    """
    Attributes:
        epochs: passes over the images.
        rate: peak learning rate of SGD with Nesterov momentum 0.937; a cosine takes it to 5%.
        decay: of convolution weights.
        average: decay of the moving average that the result is.
        burn_in: share of the run, at most, in which rates and momentum are brought up; it takes three epochs, and at
            least 500 steps, where that is less.
        nominal_batch: images per optimizer step; gradients of smaller batches are accumulated up to it.
        hooks: penalties, teachers, quantizers.
    """

    epochs: int
    rate: float = 0.01
    decay: float = 5e-4
    average: float = 0.9998
    burn_in: float = 0.2
    nominal_batch: int = 64
    hooks: Sequence[Hook] = ()
    device: str = "auto"


def train_detector(
    model: nn.Module,
    loss: MapLoss,
    batches: DetectionBatches,
    options: DetectionTraining,
    *,
    checkpoint: Path | None = None,
    check: Callable[[nn.Module], float] | None = None,
    what: str = "training",
    log: Log | None = None,
) -> Trained:
    """Train `model` in place; its outputs in training mode are the raw maps of `loss`.

    Warns:
        UnmatchedWarning: how many ground truths no anchor matched, and how many augmentation cut away.
    """
    accumulate = max(round(options.nominal_batch / batches.batch), 1)
    steps = max(1, options.epochs * len(batches) // accumulate)
    optimizer = SGD(parameter_groups(model, options.decay), lr=options.rate, momentum=MOMENTUM, nesterov=True)
    per_epoch = max(1, len(batches) // accumulate)
    burn_in = BurnIn(min(max(3 * per_epoch, 500), int(options.burn_in * steps)), loss)
    scaled = min(batches.batch * accumulate / options.nominal_batch, 1.0)

    def of_outputs(outputs: Any, target: Any) -> Tensor:
        targets, size = target
        maps = [tensor for _, tensor in output_tensors(outputs) if tensor.dim() == 4]
        return loss(maps, targets, size) * scaled

    def batch_at(number: int) -> Any:
        found = batches(number)
        return type(found)(found.inputs, (found.target, tuple(found.inputs[0].shape[2:])))

    done = fit(
        model,
        batch_at,
        optimizer,
        LoopOptions(
            steps=steps,
            rate=COSINE,
            accumulate=accumulate,
            clip=10.0,
            average=options.average,
            seed=batches.seed,
            what=what,
        ),
        loss=of_outputs,
        hooks=[burn_in, *options.hooks],
        check=check,
        checkpoint=checkpoint,
        log=log,
        devices=Devices(as_device(options.device), "off"),
    )
    model.to("cpu")
    _warn(loss, batches)
    return done


def _warn(loss: MapLoss, batches: DetectionBatches) -> None:
    if isinstance(loss, AnchorLoss) and loss.unmatched:
        went = "went to their best anchor" if loss.gains.unmatched == "best-anchor" else "were dropped"
        text = f"{loss.unmatched} of {loss.unmatched + loss.matched} ground truths match no anchor, and {went}"
        warnings.warn(UnmatchedWarning(text), stacklevel=3)
    if batches.cut.share > 0.2:
        text = f"augmentation cut away {batches.cut.share:.0%} of the objects; lower mosaic, scale or translate"
        warnings.warn(UnmatchedWarning(text), stacklevel=3)


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Scales and other vectors without decay, weights with it, biases without it, in this order."""
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    biases = [each for name, each in named if name.rpartition(".")[2] == "bias"]
    weights = [each for name, each in named if each.dim() > 1 and name.rpartition(".")[2] != "bias"]
    others = [each for name, each in named if each.dim() <= 1 and name.rpartition(".")[2] != "bias"]
    return [
        {"params": others, "weight_decay": 0.0},
        {"params": weights, "weight_decay": decay},
        {"params": biases, "weight_decay": 0.0, "bias": True},
    ]


class BurnIn(Hook):
    """Brings rates, momentum and the objectness target up over the first steps, linearly.

    Biases start at a rate of 0.1, everything else at 0; decay starts at 0, momentum at 0.9. The number of accumulated
    batches stays, which public code brings up as well.
    """

    def __init__(self, steps: int, loss: MapLoss) -> None:
        self._steps, self._loss = steps, loss
        self._decays: list[float] = []

    def on_start(self, run: Run) -> None:
        self._decays = [group["weight_decay"] for group in run.optimizer.param_groups]

    def after_backward(self, run: Run) -> None:
        share = 1.0 if run.step >= self._steps else run.step / self._steps
        if isinstance(self._loss, AnchorLoss):
            self._loss.ratio = share
        for group, decay in zip(run.optimizer.param_groups, self._decays, strict=True):
            first = FIRST_BIAS_RATE if group.get("bias") else 0.0
            group["lr"] = first + (group["lr"] - first) * share
            group["momentum"] = FIRST_MOMENTUM + (MOMENTUM - FIRST_MOMENTUM) * share
            group["weight_decay"] = decay * share
