"""Hooks of a teacher beside a network that trains, for losses of any task and those of detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eightfold.errors import UsageError
from eightfold.runtime.postprocess import decoder_of
from eightfold.tasks.base import VisionTask

if TYPE_CHECKING:
    from torch import nn

    from eightfold.compress.train.hooks import Hook
    from eightfold.compress.types import ExampleInputs

PREFIX = "detection-"  # of the losses that look at a detector's ground truths


def distillation_hooks(
    task: VisionTask,
    student: nn.Module,
    teacher: nn.Module,
    weights: Mapping[str, float],
    example_inputs: ExampleInputs,
    classes: tuple[str, ...],
    *,
    pairs: Mapping[str, str] | None = None,
    temperature: float = 4.0,
) -> list[Hook]:
    """The teacher's losses for a training of the task.

    Args:
        weights: loss -> weight: those of `DistillOptions`, and "detection-1" to "detection-5" for detectors with
            anchors.
        classes: of the images.
        pairs, temperature: see `DistillOptions`; the detection losses have their own.

    Raises:
        UsageError: a loss that does not exist, or detection losses for another task.
        ModelError: a teacher of another task.
    """
    from eightfold.compress.train.distill.distiller import Distiller, DistillOptions
    from eightfold.compress.train.distill.hook import Distill
    from eightfold.tasks.detection.distilling import DetectionDistill
    from eightfold.tasks.detection.losses import detection_loss

    special = {name: weight for name, weight in weights.items() if name.startswith(PREFIX)}
    others = {name: weight for name, weight in weights.items() if name not in special}
    hooks: list[Hook] = []
    if others or not special:
        hooks.append(Distill(Distiller(student, teacher, example_inputs, DistillOptions(others, pairs, temperature))))
    if special:
        meaning: Any = task.outputs_mean(classes)
        if meaning.kind != "detect":
            raise UsageError(
                f"the distillation loss {next(iter(special))!r} for {meaning.kind}", allowed="detectors with anchors"
            )
        decoder: Any = decoder_of(meaning)
        loss = detection_loss(meaning.decode, decoder, len(classes))
        hooks.append(DetectionDistill(student, teacher, loss, special, example_inputs))
    return hooks
