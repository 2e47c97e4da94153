"""A teacher beside a detector with anchors that trains: the five strategies of `detection_distillation` as a hook."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eightfold.compress.train.distill.detection import STRATEGIES, HeadMaps, detection_distillation
from eightfold.compress.train.distill.features import feature_pairs, map_shapes, recorded
from eightfold.compress.train.hooks import Batch, Hook, Run
from eightfold.compress.types import ExampleInputs
from eightfold.errors import ModelError, UsageError, one_of
from eightfold.export.verify.module_runs import evaluating, output_tensors
from eightfold.tasks.detection.anchor_loss import AnchorLoss, Positives

LOSSES = tuple(f"detection-{strategy}" for strategy in STRATEGIES)
OF_FEATURES = frozenset({"detection-4", "detection-5"})


class DetectionDistill(Hook):
    """Adds detection distillation losses; for the training of detectors, whose batches carry ground truths and size.

    Args:
        student, teacher: networks whose outputs are raw maps of the same anchors and classes; widths may differ.
        loss: that of the student, whose matched cells strategies 2 to 5 look at.
        weights: "detection-1" to "detection-5" -> weight.
        example_inputs: what both are called with.

    Raises:
        UsageError: a strategy that does not exist; a loss without anchors.
        ModelError: a teacher of another task; no features to pair.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        loss: Any,
        weights: Mapping[str, float],
        example_inputs: ExampleInputs,
    ) -> None:
        for name in weights:
            one_of("detection distillation", name, LOSSES)
        if not isinstance(loss, AnchorLoss):
            raise UsageError(
                "detection distillation of a head without anchors",
                allowed="the decoder yolo-anchors; cwd, mgd, attention and features suit others",
            )
        args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        self._teacher, self._loss, self._weights = teacher, loss, dict(weights)
        self._student, self._seen = student, dict[str, Tensor]()
        self._require_one_task(args)
        wanted = OF_FEATURES.intersection(weights)
        self.pairs = feature_pairs(map_shapes(student, args), map_shapes(teacher, args)) if wanted else {}

    def _require_one_task(self, args: tuple[Any, ...]) -> None:
        with evaluating(self._student), evaluating(self._teacher), torch.no_grad():
            shapes = [[tuple(each.shape) for each in maps_of(model(*args))] for model in (self._student, self._teacher)]
        if shapes[0] != shapes[1] or not shapes[0]:
            raise ModelError(
                f"the student gives maps {shapes[0]} and the teacher {shapes[1]}",
                allowed="a teacher with the student's anchors and classes",
                remedy="give the network that the student was pruned from",
            )

    def on_start(self, run: Run) -> None:
        self._teacher.to(next(run.model.parameters()).device)

    @contextlib.contextmanager
    def around_forward(self, run: Run, batch: Batch) -> Iterator[None]:
        with recorded(self._student, list(self.pairs)) as found:
            yield
        self._seen = found

    def terms(self, run: Run, batch: Batch, outputs: object) -> Mapping[str, Tensor]:
        targets, size = batch.target
        own = maps_of(outputs)
        with (
            evaluating(self._teacher),
            torch.no_grad(),
            recorded(self._teacher, list(self.pairs.values())) as wanted,
        ):
            theirs = maps_of(self._teacher(*batch.inputs))
        anchors = self._loss._anchors(own, size)
        matched = self._matched(own, targets, size)
        features = [(self._seen[mine], wanted[other]) for mine, other in self.pairs.items()]
        self._seen = {}
        return {
            name: weight
            * detection_distillation(
                int(name[-1]),
                HeadMaps(own, anchors),
                HeadMaps(theirs, anchors),
                matched,
                features=features,
                size=size,
            )
            for name, weight in self._weights.items()
        }

    def _matched(self, maps: Sequence[Tensor], targets: Tensor, size: tuple[int, int]) -> list[Positives]:
        """Without counting the ground truths a second time."""
        counts = self._loss.matched, self._loss.unmatched
        found = self._loss.positives(maps, targets, size)
        self._loss.matched, self._loss.unmatched = counts
        return found


def maps_of(outputs: object) -> list[Tensor]:
    """The raw maps among a detector's outputs."""
    return [tensor for _, tensor in output_tensors(outputs) if tensor.dim() == 4]
