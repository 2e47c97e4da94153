"""The task that a recipe asks for."""

from __future__ import annotations

from eightfold.errors import RecipeError
from eightfold.recipe import TaskSection
from eightfold.tasks.agreement import AGREEMENTS, Agreement
from eightfold.tasks.base import VisionTask
from eightfold.tasks.classify import Classify
from eightfold.tasks.detect import Detect

KINDS: dict[str, type[VisionTask]] = {"classify": Classify, "detect": Detect}


def task_of(section: TaskSection) -> VisionTask:
    """The task on labelled images."""
    if section.kind not in KINDS:
        raise RecipeError(
            f"task.kind is {section.kind} for labelled images",
            allowed=f"{', '.join(KINDS)}; any kind for images without labels",
            remedy="give a folder of images as data.source",
        )
    return KINDS[section.kind](section)


def agreement_of(section: TaskSection) -> Agreement:
    """The task on images without labels."""
    return AGREEMENTS[section.kind](section)
