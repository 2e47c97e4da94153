"""What `eightfold run` asks of a task. It carries out a recipe for each of them alike, and knows none by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eightfold.calib.images import ImageSet
from eightfold.calib.preprocess import Preprocess
from eightfold.export.score import Score
from eightfold.recipe import DataSection, TrainSection
from eightfold.runtime.backends.base import Array, Arrays
from eightfold.runtime.manifest import Task

if TYPE_CHECKING:
    from torch import nn

Predict = Callable[[Array], Arrays]
"""A network at work: model-ready images (batch, ...) -> its outputs by name. Always called with full batches."""


@dataclass(frozen=True)
class Training:
    """What a network is trained on, and how.

    Attributes:
        seed: fixes the order and the augmentation.
        checkpoint: where the state after each epoch goes, so that a run that was killed goes on there.
        what: names the work in the progress line.
    """

    images: ImageSet
    preprocess: Preprocess
    section: TrainSection
    seed: int
    checkpoint: Path
    what: str


class VisionTask(ABC):
    """One kind of task: its data, its loss, its metrics.

    Attributes:
        metrics: what `evaluate` measures, by the names that a manifest has for it; all are shares, in [0, 1], and more
            is better. The first one leads: reports and bounds on accuracy go by it.
    """

    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def write_data(self, section: DataSection, directory: Path, *, seed: int) -> None:
        """Put the data set into `directory`, as `train` and `test`, whole or not at all."""

    @abstractmethod
    def labelled_images(self, folder: Path) -> ImageSet:
        """One part of a data set that `write_data` wrote, with the names of the classes. Raises ImageError."""

    @abstractmethod
    def outputs_mean(self, classes: tuple[str, ...]) -> Task:
        """How a runtime decodes what the network puts out."""

    @abstractmethod
    def require_outputs(self, outputs: Arrays, classes: tuple[str, ...], seen: str) -> None:
        """Raises ModelError where these outputs of one image are not what the task decodes.

        Args:
            outputs: of a batch of one.
            seen: names the network, and the images that it should fit.
        """

    @abstractmethod
    def train(self, model: nn.Module, training: Training) -> float:
        """Train `model` in place; returns the last epoch's mean loss, NaN without an epoch."""

    @abstractmethod
    def evaluate(self, predict: Predict, images: ImageSet, preprocess: Preprocess, *, batch: int) -> dict[str, float]:
        """Each of `metrics` on labelled images.

        Args:
            predict: the network, which is called with `batch` images each time.
            preprocess: makes its input.
        """

    @abstractmethod
    def score(self, images: ImageSet, preprocess: Preprocess) -> Score:
        """The leading metric of an ONNX file in percent, for a search that may not lose much of it."""
