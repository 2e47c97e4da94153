"""The task that a recipe asks for."""

from __future__ import annotations

from eightfold.errors import RecipeError, UnknownNameError, UsageError
from eightfold.recipe_sections import TaskSection
from eightfold.tasks.agreement import (
    AgreementTask,
    ClassifyAgreement,
    MatteAgreement,
    SegmentAgreement,
    TensorAgreement,
)
from eightfold.tasks.base import VisionTask
from eightfold.tasks.classify import Classify
from eightfold.tasks.detect import Detect
from eightfold.tasks.detection.agreement import DetectAgreement
from eightfold.tasks.matte import MatteTask
from eightfold.tasks.segment import SegmentTask

KINDS: dict[str, type[VisionTask]] = {
    "classify": Classify,
    "detect": Detect,
    "segment": SegmentTask,
    "matte": MatteTask,
}
# Of images without labels.
AGREEMENTS: dict[str, type[AgreementTask]] = {
    "classify": ClassifyAgreement,
    "detect": DetectAgreement,
    "segment": SegmentAgreement,
    "matte": MatteAgreement,
    "tensors": TensorAgreement,
}


def register_task(kind: str, task: type[VisionTask]) -> None:
    """Make `task.kind: KIND` of a recipe known. A name that is taken is refused."""
    if kind in KINDS:
        raise UsageError(f"the task {kind!r} exists", allowed="a new name", remedy="choose another name")
    KINDS[kind] = task


def task_of(section: TaskSection) -> VisionTask:
    """The task on labelled images."""
    if section.kind not in KINDS:
        raise RecipeError(
            f"task.kind is {section.kind} for labelled images",
            allowed=f"{', '.join(KINDS)}; those of images without labels: {', '.join(AGREEMENTS)}",
            remedy="give a folder of images as data.source, or correct task.kind",
        )
    return KINDS[section.kind](section)


def agreement_of(section: TaskSection) -> AgreementTask:
    """The task on images without labels. Raises UnknownNameError."""
    if section.kind not in AGREEMENTS:
        raise UnknownNameError.of("task as task.kind", section.kind, AGREEMENTS)
    return AGREEMENTS[section.kind](section)
