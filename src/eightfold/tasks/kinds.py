"""The task that a recipe asks for."""

from __future__ import annotations

from eightfold.recipe import TaskSection
from eightfold.tasks.base import VisionTask
from eightfold.tasks.classify import Classify
from eightfold.tasks.detect import Detect

KINDS: dict[str, type[VisionTask]] = {"classify": Classify, "detect": Detect}


def task_of(section: TaskSection) -> VisionTask:
    """The task that a recipe's section names."""
    return KINDS[section.kind](section)
