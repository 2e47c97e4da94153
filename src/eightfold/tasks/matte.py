"""Matting: images with mattes, MODNet's losses, and errors against the true matte."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, ImageError, ModelError, RecipeError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.dense import AlphaMatte
from eightfold.tasks.base import Evaluation, Network, Training
from eightfold.tasks.dense.dense_task import DenseTask
from eightfold.tasks.dense.matted_images import ALPHAS, MattedImages, open_mattes
from eightfold.tasks.dense.matting_metrics import matting_errors, mean_errors, trimap
from eightfold.tasks.dense.picture_batches import PictureBatches
from eightfold.tasks.inputs import full_batches
from eightfold.zoo.generated_mattes import write_mattes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# The argument of forward() with which a network gives (semantic, detail, matte), as MODNet's training needs it.
HEADS = "heads"


class MatteTask(DenseTask):
    """Folders images/ and alphas/; MODNet's losses; one minus the mean absolute difference of mattes."""

    metrics = ("1-mad", "1-boundary-mad")
    decode, gives, plural, truths, leading = "matte", "gives mattes", "mattes", ALPHAS, "1 - MAD"

    def generate(self, directory: Path, *, train: int, test: int, side: int, seed: int) -> Path:
        return write_mattes(directory, train=train, test=test, side=side, seed=seed)

    def checked_classes(self, source: Path) -> tuple[str, ...]:
        for part in ("train", "test"):
            open_mattes(source / part)
        return ()

    def labelled_images(self, folder: Path) -> MattedImages:
        return open_mattes(folder)

    def outputs_mean(self, classes: tuple[str, ...], *, decoded: bool = False) -> Task:
        return Task(kind="matte", decode=self.decode, options=self.section.options)

    def require_outputs(self, network: Network, image: Array, seen: str) -> None:
        size = network.preprocess.height, network.preprocess.width
        try:
            _decoder(network.task)(network.predict(image), [network.preprocess.place(*size)] * len(image))
        except BundleError as error:
            raise ModelError(
                f"{seen}: {error.seen}", allowed=error.allowed, remedy="name task.options.output"
            ) from None

    def train(self, model: nn.Module, training: Training) -> float:
        images, batch = _matted(training.images), min(training.section.batch, len(training.images))
        batches = MatteBatches(images, training.preprocess, batch, training.seed)
        return training.fit(with_heads(model), batches, matting_loss())

    def evaluate(self, network: Network, images: ImageSet) -> dict[str, float]:
        return self.measure(network, images).values

    def measure(self, network: Network, images: ImageSet) -> Evaluation:
        """Each image is a part."""
        mattes, decode, errors = _matted(images), _decoder(network.task), []
        for batch in full_batches(images, network.preprocess, network.batch):
            found = decode(network.predict(batch.rows), batch.placements)
            errors += [
                matting_errors(each.alpha, mattes.alpha(at)) for each, at in zip(found, batch.places, strict=True)
            ]
        mean = mean_errors(errors)
        values = dict(zip(self.metrics, (1 - mean.mad, 1 - mean.boundary_mad), strict=True))
        return Evaluation(values, tuple(1 - each.mad for each in errors))

    def chance(self, images: ImageSet) -> float:
        """The better of all opaque and all transparent."""
        mattes = _matted(images)
        covered = float(np.mean([mattes.alpha(index).mean() for index in range(len(mattes))]))
        return max(covered, 1 - covered)


def with_heads(model: nn.Module) -> nn.Module:
    """`model` with the auxiliary heads that only training runs, sharing its parameters; itself where it has none."""
    from torch import nn

    if HEADS not in inspect.signature(model.forward).parameters:
        return model

    class WithHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Any:
            return self.model(images, **{HEADS: True})

    return WithHeads()


def matting_loss() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(output, target) -> scalar; a target is (batch, 5, h, w) of `MatteBatches`."""
    from eightfold.tasks.dense.matting_losses import MattingLoss

    loss = MattingLoss()
    return lambda output, target: loss(output, target[:, :3], target[:, 3:4], target[:, 4:])


class MatteBatches(PictureBatches[MattedImages]):
    """Pairs (b, 3, h, w) and (b, 5, h, w): the images, and the images with alpha and trimap behind them."""

    def truth(self, index: int) -> Array:
        """(2, h, w), placed as the image is."""
        alpha = _alpha_rules(self.preprocess)(self.images.truth(index))[0]
        return np.stack((alpha, trimap(alpha)))

    def pair(self, rows: Array, truth: Array) -> tuple[Tensor, Tensor]:
        import torch

        target = torch.from_numpy(np.concatenate((rows, truth), axis=1))
        return target[:, :3].contiguous(), target


def _alpha_rules(preprocess: Preprocess) -> Preprocess:
    """The preprocessing of a matte beside an image: same place, values 0..1, transparent where there is no image."""
    kept = {"height", "width", "resize", "interpolation", "antialias", "anchor", "shorter_side"}
    return Preprocess(**preprocess.model_dump(include=kept), color="grey", channels=1, pad_value=0, scale=1 / 255)


def _matted(images: ImageSet) -> MattedImages:
    if not isinstance(images, MattedImages):
        raise ImageError("these images have no mattes", allowed="folders images/ and alphas/ of the same names")
    return images


def _decoder(task: Task) -> AlphaMatte:
    decoder = decoder_of(task)
    if not isinstance(decoder, AlphaMatte):
        raise RecipeError(f"task.decode is {task.decode!r}", allowed=MatteTask.decode)
    return decoder
