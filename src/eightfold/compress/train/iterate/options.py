"""Options of pruning in many steps, and the training after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eightfold.compress.criteria.scores import needs_of
from eightfold.errors import UsageError


@dataclass(frozen=True)
class StepTraining:
    """Training after one step.

    Attributes:
        step, steps: its place, from 1, and their number.
        epochs, rate, batch: of the step.
        warm_up_epochs: in which the rate rises.
        checkpoint: a file for the state of this step's training.
    """

    step: int
    steps: int
    epochs: int
    rate: float
    batch: int
    warm_up_epochs: int
    checkpoint: Path


@dataclass(frozen=True)
class IterateOptions:
    """
    Attributes:
        steps: from the original widths to the last, before those that change nothing are merged.
        keep_ratio: share of the original channels at the end.
        multiple: of widths.
        score: of channels, from weights alone.
        ignore: names of parameters (with wildcards) whose groups stay whole.
        epochs, rate, batch: of each step: one value, or one per step that is left; the last one holds for the rest.
        last_factor: epochs of the last step are multiplied by it.
        warm_up_epochs: of each step.
        max_drop: of the metric from the original's, at most; None: any.
        relative: `max_drop` is a share of the original's metric rather than its difference.
    """

    steps: int = 16
    keep_ratio: float = 0.5
    multiple: int = 8
    score: str = "group_l2"
    ignore: Sequence[str] = ()
    epochs: Sequence[int] = (10,)
    rate: Sequence[float] = (0.01,)
    batch: Sequence[int] = (64,)
    last_factor: int = 2
    warm_up_epochs: int = 3
    max_drop: float | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        if needs_of(self.score) != "weights":
            raise UsageError(f"the score {self.score!r} in iterative pruning", allowed="scores of weights alone")

    def training(self, step: int, steps: int, checkpoint: Path) -> StepTraining:
        """The training after step `step` of `steps`, from 1."""
        epochs = _at(self.epochs, step) * (self.last_factor if step == steps else 1)
        warm_up = min(self.warm_up_epochs, max(epochs - 1, 0))
        return StepTraining(step, steps, epochs, _at(self.rate, step), _at(self.batch, step), warm_up, checkpoint)

    def holds(self, original: float, metric: float) -> bool:
        """True if the metric is within the bound."""
        if self.max_drop is None:
            return True
        drop = original - metric
        return drop <= self.max_drop * (original if self.relative else 1.0)


def _at(values: Sequence[Any], step: int) -> Any:
    return values[min(step, len(values)) - 1]
