"""Networks by name, for callers that need the module or the task alone; see `zoo/sources/` for the sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.runtime.bundle.manifest import Task
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source

if TYPE_CHECKING:
    import torch


def build_model(source: str, *, num_classes: int, seed: int = 0) -> torch.nn.Module:
    """Construct the network named by `source` with `num_classes` outputs; the seed fixes its random weights.

    Raises: as `load_source`.
    """
    return load_source(source, SourceOptions(num_classes=num_classes, seed=seed)).module


def task_of_source(source: str, size: tuple[int, int]) -> Task:
    """The meaning of a source's outputs for images of this (height, width)."""
    from eightfold.zoo.sources.registry import source_of

    return source_of(source).task(source, size)
