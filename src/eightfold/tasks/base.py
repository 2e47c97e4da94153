"""Interface of a task to `eightfold run`, which carries out a recipe for each of them alike, and knows none by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import RecipeError
from eightfold.export.int8.score import Score
from eightfold.recipe import Recipe
from eightfold.recipe_sections import DataSection, TaskSection, TrainSection
from eightfold.runtime.bundle.manifest import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eightfold.compress.train.hooks import Hook
    from eightfold.compress.train.log import Log
    from eightfold.compress.types import Loss


PARTS = 10  # of a set of images, to see how much a metric varies


class Batches(Protocol):
    """Training data by epoch: the same batches for the same number every time."""

    def __len__(self) -> int: ...

    def __call__(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]: ...


@dataclass(frozen=True)
class Training:
    """Data and settings to train a network with.

    Attributes:
        seed: fixes the order and the augmentation.
        checkpoint: where the state after each epoch goes, so that a run that was killed goes on there.
        what: names the work in the progress line.
        hooks: penalties, teachers, quantizers of the training loop.
        device: "cpu", "cuda" or "auto".
        log: of losses; none by default.
    """

    images: ImageSet
    preprocess: Preprocess
    section: TrainSection
    seed: int
    checkpoint: Path
    what: str
    hooks: Sequence[Hook] = ()
    device: str = "cpu"
    log: Log | None = None

    def fit(self, model: nn.Module, batches: Batches, loss: Loss) -> float:
        """Train `model` in place by SGD on `batches`; returns the last epoch's mean loss, NaN without an epoch."""
        from eightfold.compress.train.train import LearningRateSchedule, train

        section = self.section
        schedule = LearningRateSchedule(
            section.epochs, len(batches), section.learning_rate, section.weight_decay, self.seed
        )
        return train(
            model,
            batches,
            loss,
            schedule,
            checkpoint=self.checkpoint,
            what=self.what,
            hooks=self.hooks,
            device=self.device,
            log=self.log,
        )


@dataclass(frozen=True)
class Network:
    """A network at work.

    Attributes:
        predict: model-ready images (batch, ...) -> its outputs by name, which the next call may overwrite.
        batch: images in each call, no less.
        preprocess: makes them.
        task: how the outputs are decoded.
    """

    predict: Callable[[Array], Arrays]
    batch: int
    preprocess: Preprocess
    task: Task


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a network on labelled images.

    Attributes:
        values: each metric of the task, in [0, 1].
        parts: the leading metric of each image, or of each part of the images; empty where it has no value there.
    """

    values: dict[str, float]
    parts: tuple[float, ...]


@dataclass(frozen=True)
class VisionTask(ABC):
    """One kind of task: its data, its loss, its metrics.

    Attributes:
        section: what the recipe says of it.
        metrics: what `evaluate` measures, by the names that a manifest has for it; all are shares, in [0, 1], and more
            is better. The first one leads: reports and bounds on accuracy go by it.
        trains: whether there is a loss to train by.
        scores_by_loss: whether `supervision` gives a loss for scores of channels.
    """

    section: TaskSection
    metrics: ClassVar[tuple[str, ...]]
    trains: ClassVar[bool] = True
    scores_by_loss: ClassVar[bool] = True

    @abstractmethod
    def check(self, recipe: Recipe) -> None:
        """Raises RecipeError where the recipe asks for what this task does not have, before anything is done."""

    @abstractmethod
    def data_digest(self, data: DataSection) -> str:
        """Changes when the user's own images or labels do."""

    def test_digest(self, data: DataSection, source: str) -> str:
        """Changes when the labelled test images at `source` do; `data` has the other keys."""
        return self.data_digest(data.model_copy(update={"source": source}))

    @abstractmethod
    def write_data(self, data: DataSection, directory: Path, *, seed: int) -> None:
        """Put the data set into `directory`, as `train` and `test`, whole or not at all. Raises ImageError."""

    def write_test(self, source: str, folder: Path) -> None:
        """Put labelled images from `source` into `folder`, as the test part. Raises ImageError."""
        raise RecipeError("data.labelled for this task", allowed="tasks with labels", remedy="leave it out")

    @abstractmethod
    def labelled_images(self, folder: Path) -> ImageSet:
        """One part of a data set that `write_data` wrote, with the names of the classes. Raises ImageError."""

    @abstractmethod
    def outputs_mean(self, classes: tuple[str, ...], *, decoded: bool = False) -> Task:
        """The runtime's task for a network's outputs; `decoded`: one with the decoder in its graph."""

    @abstractmethod
    def require_outputs(self, network: Network, image: Array, seen: str) -> None:
        """Raises ModelError where a network's outputs are not what the task decodes.

        Args:
            image: model-ready, for a batch of one.
            seen: names the network, and the images that it should fit.
        """

    @abstractmethod
    def train(self, model: nn.Module, training: Training) -> float:
        """Train `model` in place; returns the last epoch's mean loss, NaN without an epoch."""

    @abstractmethod
    def evaluate(self, network: Network, images: ImageSet) -> dict[str, float]:
        """Each of `metrics` on labelled images."""

    def measure(self, network: Network, images: ImageSet) -> Evaluation:
        """`evaluate`, with the parts that tell how sure the leading metric is. By default those are PARTS equal parts
        of the images, each measured by itself."""
        values, count = self.evaluate(network, images), min(PARTS, len(images))
        places = np.array_split(np.arange(len(images)), count)
        parts = [self.evaluate(network, images.subset(part.tolist()))[self.metrics[0]] for part in places]
        return Evaluation(values, tuple(parts))

    def supervision(self, images: ImageSet) -> tuple[Loss, torch.Tensor] | None:
        """The loss and each image's target, for scores that look at gradients; None where there is no loss."""
        return None

    def chance(self, images: ImageSet) -> float:
        """The leading metric of an answer that does not look at the image, in [0, 1]."""
        return 0.0

    @abstractmethod
    def score(self, images: ImageSet, preprocess: Preprocess, reference: Path) -> Score:
        """The leading metric of an ONNX file in percent, for a search that may not lose much of it. Its outputs are not
        decoded yet. Where images have no labels, the answers of the float graph `reference` stand for them."""
