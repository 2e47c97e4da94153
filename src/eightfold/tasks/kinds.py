"""The task that a recipe asks for."""

from __future__ import annotations

from eightfold.tasks.base import VisionTask
from eightfold.tasks.classify import Classify


def task_of() -> VisionTask:
    return Classify()
