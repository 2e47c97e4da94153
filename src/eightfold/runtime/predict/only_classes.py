"""Detections of chosen classes only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eightfold.arrays import Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.errors import UnknownNameError, UsageError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess.results import Detections

Decode = Callable[[Arrays, Sequence[Placement]], Sequence[Any]]


def only_classes(decode: Decode, task: Task, classes: Sequence[str]) -> Decode:
    """A decoder whose detections have these labels, or class numbers written as text; `decode` itself for none.

    Raises:
        UsageError: the task is no detection.
        UnknownNameError: no class of that name.
    """
    if not classes:
        return decode
    if task.kind != "detect":
        raise UsageError(f"classes {', '.join(classes)} of the task {task.kind}", allowed="networks that detect")
    wanted = [_number(name, task.labels) for name in classes]

    def decoded(outputs: Arrays, placements: Sequence[Placement]) -> Sequence[Any]:
        return [_of(found, wanted) for found in decode(outputs, placements)]

    return decoded


def _number(name: str, labels: Sequence[str]) -> int:
    if name in labels:
        return labels.index(name)
    if name.isdigit() and (not labels or int(name) < len(labels)):
        return int(name)
    raise UnknownNameError.of("class", name, labels or ["0, 1, ... of a network without names"])


def _of(found: Detections, wanted: Sequence[int]) -> Detections:
    kept = np.isin(found.classes, wanted)
    labels = tuple(label for label, keep in zip(found.labels, kept.tolist(), strict=True) if keep)
    return Detections(found.boxes[kept], found.scores[kept], found.classes[kept], labels)
