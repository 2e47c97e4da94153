"""Options and results of a training run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from eightfold.compress.train.log import Row
from eightfold.compress.train.schedule import LearningRate
from eightfold.errors import ModelError


class DivergedError(ModelError):
    """A loss or a gradient became NaN or infinite; the step was not taken."""


COSINE = LearningRate()
Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.monotonic, "cpu": time.process_time}


@dataclass(frozen=True)
class LoopOptions:
    """
    Attributes:
        steps: optimizer steps; None where `seconds` ends the run.
        seconds: time, checks included; a resumed run goes on with what is left.
        clock: measures `seconds`: "wall", or "cpu" for the processor time of this process on all cores, so that runs
            compare on a machine with other work.
        rate: the schedule; peaks are the learning rates of the optimizer's groups.
        accumulate: batches whose gradients are averaged in one step.
        clip: largest norm of the gradient; None: any.
        average: decay of the exponential moving average that checks and the result use; 0: none.
        checks: how often `check` is called over the run, evenly.
        patience: checks without a better value after which the run stops; None: never.
        training_mode: whether the model trains in training mode; in evaluation mode batch norms keep their statistics.
        save_every_s: seconds between checkpoints.
        seed: with the step's number, seeds everything random in that step.
        what: names the work in progress lines and errors.
    """

    steps: int | None = None
    seconds: float | None = None
    clock: Clock = "wall"
    rate: LearningRate = COSINE
    accumulate: int = 1
    clip: float | None = None
    average: float = 0.0
    checks: int = 10
    patience: int | None = None
    training_mode: bool = True
    save_every_s: float = 30.0
    seed: int = 0
    what: str = "training"


@dataclass(frozen=True)
class Trained:
    """
    Attributes:
        steps: steps taken, in all runs of a resumed one.
        seconds: time they took.
        loss: mean of the last steps' losses; NaN without a step.
        best: the best value of `check`, NaN without one; the model holds that state.
        best_step: the step after which it was measured.
        stopped: "" for a whole run, "early" by patience, "interrupted" by Ctrl-C.
        rows: the log.
    """

    steps: int
    seconds: float
    loss: float
    best: float
    best_step: int
    stopped: str
    rows: tuple[Row, ...]
