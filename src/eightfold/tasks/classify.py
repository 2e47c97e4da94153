"""Image classification: batches for training, and top-1 of anything that maps images to scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, ImageError, ModelError, RecipeError
from eightfold.export.int8.score import Score, top1_score
from eightfold.files import digest_of
from eightfold.recipe import Recipe
from eightfold.recipe_sections import DataSection
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.decoder import the_output
from eightfold.tasks.base import Evaluation, Network, Training, VisionTask
from eightfold.tasks.inputs import full_batches, shuffled, tensors
from eightfold.zoo.datasets.folders import SHIPPED, require_source, write_dataset

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eightfold.compress.types import Loss

DECODE = "classify"
UNLABELLED = ("images",)  # the folders of a training part without labels, see `tasks/photos.py`


class Classify(VisionTask):
    """Folders of images, one for each label; cross-entropy; top-1."""

    metrics = ("top1",)

    def check(self, recipe: Recipe) -> None:
        if self.section.decode not in ("", DECODE):
            raise RecipeError(
                f"task.decode is {self.section.decode!r} for a network that classifies",
                allowed=DECODE,
                remedy="leave it out, or name the task: kind: detect",
            )
        if recipe.export.decode:
            raise RecipeError(
                "export.decode for a network that classifies", allowed="networks that detect", remedy="leave it out"
            )
        try:
            decoder_of(self._task(()))
        except BundleError as error:
            raise RecipeError(f"task.options: {error.seen}", allowed=error.allowed) from None

    def data_digest(self, data: DataSection) -> str:
        require_source(data.source)
        return "" if data.source in SHIPPED else digest_of(data.source) or ""

    def test_digest(self, data: DataSection, source: str) -> str:
        return digest_of(source) or ""

    def write_data(self, data: DataSection, directory: Path, *, seed: int) -> None:
        write_dataset(
            data.source,
            directory,
            train_images=data.train_images,
            test_images=data.test_images,
            seed=seed,
        )

    def write_test(self, source: str, folder: Path) -> None:
        labelled_images(Path(source))
        shutil.copytree(source, folder)

    def labelled_images(self, folder: Path) -> ImageSet:
        return labelled_images(folder)

    def outputs_mean(self, classes: tuple[str, ...], *, decoded: bool = False) -> Task:
        """Labels of the recipe's own are shown in place of the folders' names."""
        if self.section.labels and len(self.section.labels) != len(classes):
            raise RecipeError(
                f"task.labels has {len(self.section.labels)} names for {len(classes)} classes",
                allowed=f"one for each, in the order of the folders: {', '.join(classes)}",
            )
        return self._task(self.section.labels or classes)

    def _task(self, labels: tuple[str, ...]) -> Task:
        return Task(kind="classify", decode=DECODE, labels=labels, options=self.section.options)

    def require_outputs(self, network: Network, image: Array, seen: str) -> None:
        """A network of the user's own may have its number of classes in its code."""
        shapes = [array.shape for array in network.predict(image).values()]
        classes = len(network.task.labels)
        if shapes != [(len(image), classes)]:
            raise ModelError(
                f"{seen}: the network gives {', '.join(map(str, shapes))} for one image",
                allowed=f"(1, {classes}): one score for each of the {classes} classes",
                remedy="name images and a network of the same classes",
            )

    def train(self, model: nn.Module, training: Training) -> float:
        from torch.nn.functional import cross_entropy

        section, batch = training.section, min(training.section.batch, len(training.images))
        batches = TrainingBatches(training.images, training.preprocess, batch, section.shift_pixels, training.seed)
        return training.fit(model, batches, cross_entropy)

    def evaluate(self, network: Network, images: ImageSet) -> dict[str, float]:
        """Share of images whose highest score is at their label."""
        return self.measure(network, images).values

    def measure(self, network: Network, images: ImageSet) -> Evaluation:
        """Each image is a part: 1 where it is right, else 0."""
        labels = labels_of(images)
        right = np.zeros(len(images))
        for batch in full_batches(images, network.preprocess, network.batch):
            best = np.argmax(the_output(network.predict(batch.rows))[: len(batch.places)], axis=1)
            right[batch.places] = best == labels[batch.places]
        return Evaluation({"top1": int(right.sum()) / len(images)}, tuple(right.tolist()))

    def supervision(self, images: ImageSet) -> tuple[Loss, torch.Tensor]:
        """Cross-entropy with the labels."""
        import torch
        from torch.nn.functional import cross_entropy

        return cross_entropy, torch.from_numpy(labels_of(images))

    def chance(self, images: ImageSet) -> float:
        """The share of the largest class."""
        return float(np.bincount(labels_of(images)).max() / len(images))

    def score(self, images: ImageSet, preprocess: Preprocess, reference: Path) -> Score:
        return top1_score(images, preprocess)


def labelled_images(folder: Path) -> ImageSet:
    """The images of `folder/LABEL/*`, whose classes are those of the folder `train` where that lies beside it.

    Raises:
        ImageError: they have no labels, or one that the training images lack.
    """
    images = open_images(folder)
    if images.labels is None:
        raise ImageError(f"the images in {folder} have no labels", allowed="a folder for each label: folder/LABEL/*")
    train = folder.parent / "train"
    if folder.name == "train" or not train.is_dir():
        return images
    return _in_classes(images, open_images(train).classes, folder, train)


def _in_classes(images: ImageSet, known: tuple[str, ...], folder: Path, train: Path) -> ImageSet:
    """The test part of a data set may lack images of a class: the others keep their numbers."""
    if known in ((), images.classes, UNLABELLED):
        return images
    for name in images.classes:
        if name not in known:
            raise ImageError(
                f"{folder} has the class {name!r}, which {train} lacks",
                allowed=", ".join(known[:12]) + (", ..." if len(known) > 12 else ""),
                remedy="name the folders of both parts alike",
            )
    places = [known.index(name) for name in images.classes]
    return replace(images, labels=tuple(places[label] for label in images.labels or ()), classes=known)


def labels_of(images: ImageSet) -> NDArray[np.int64]:
    """Labels of the images, int64."""
    return np.asarray(images.labels, np.int64)


@dataclass(frozen=True)
class TrainingBatches:
    """Shuffled, shifted batches: calling it with an epoch's number gives the same batches every time.

    Attributes:
        images: what to train on. The last batch of an epoch is dropped when it is not full.
        batch: images per batch, as many as there are at most.
        shift_pixels: each image moves by up to this many pixels in x and y; the edge is repeated.
        seed: with the epoch's number, fixes order and shifts.
    """

    images: ImageSet
    preprocess: Preprocess
    batch: int
    shift_pixels: int
    seed: int

    def __len__(self) -> int:
        return len(self.images) // self.batch

    def __call__(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        import torch

        rng = np.random.default_rng((self.seed, epoch))
        labels = labels_of(self.images)
        for chosen in shuffled(len(self.images), self.batch, rng):
            inputs = shifted(tensors(self.images, chosen, self.preprocess), self.shift_pixels, rng)
            yield torch.from_numpy(inputs), torch.from_numpy(labels[chosen])


def shifted(images: Array, pixels: int, rng: np.random.Generator) -> Array:
    """Move each image of (n, c, h, w) by its own random offset of up to `pixels`, repeating the edge."""
    if pixels == 0:
        return images
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    offsets = rng.integers(0, 2 * pixels + 1, size=(len(images), 2))
    return np.stack([padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(offsets)])
