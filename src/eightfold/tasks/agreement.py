"""Agreement with the original network, for images without labels: its own answers on held-out images are the truth.

Every metric is a share in [0, 1] that the original itself reaches: `agreement-top1` of classifiers; `agreement-map50`
of detectors, against the detections above the decoder's threshold; `agreement-iou`, the mean over images of the mean
overlap of each class's pixels; `agreement-mae`, 1 - mean absolute error of mattes; `agreement-cosine` of raw outputs.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, ImageError, ModelError, RecipeError
from eightfold.export.in_graph.detections import decoded_task
from eightfold.export.int8.score import Score
from eightfold.recipe import Recipe
from eightfold.recipe_sections import DataSection
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.decoder import the_output
from eightfold.tasks.answers import AnsweredImages
from eightfold.tasks.base import Evaluation, Network, Training, VisionTask
from eightfold.tasks.inputs import ImageBatch, full_batches
from eightfold.tasks.networks import onnx_network
from eightfold.tasks.photos import write_photos

if TYPE_CHECKING:
    from torch import nn


class AgreementTask(VisionTask):
    """A network of any task on unlabelled images."""

    trains: ClassVar[bool] = False
    scores_by_loss: ClassVar[bool] = False

    def check(self, recipe: Recipe) -> None:
        from eightfold.compress.criteria.scores import needs_of

        for name, epochs in (("train", recipe.train.epochs), ("compress.finetune", recipe.compress.finetune.epochs)):
            if epochs:
                raise RecipeError(
                    f"{name}.epochs is {epochs} for images without labels",
                    allowed="0: there is nothing to train on",
                    remedy="use compress.compensate: lsq, which needs images only, or give labelled images",
                )
        if needs_of(recipe.compress.score) == "loss":
            raise RecipeError(
                f"compress.score is {recipe.compress.score}, which needs a loss, for images without labels",
                allowed="scores of weights, or lsq and activation_mean, which look at images alone",
                remedy="choose one of these",
            )
        try:
            decoder_of(self.outputs_mean(()))
            if recipe.export.decode:
                decoded_task(self.outputs_mean(()))
        except BundleError as error:
            raise RecipeError(f"task: {error.seen}", allowed=error.allowed) from None

    def data_digest(self, data: DataSection) -> str:
        return open_images(data.source).digest()

    def write_data(self, data: DataSection, directory: Path, *, seed: int) -> None:
        write_photos(data, directory, seed=seed)

    def labelled_images(self, folder: Path) -> ImageSet:
        """The images of one part; they have no labels."""
        return ImageSet(open_images(folder / "images").items, None, self.section.labels)

    def outputs_mean(self, classes: tuple[str, ...], *, decoded: bool = False) -> Task:
        kind, decode = self.section.kind, self.section.decode
        task = Task.model_validate(
            {
                "kind": "classify" if kind == "auto" else kind,
                "decode": decode or str(kind),
                "labels": self.section.labels,
                "options": self.section.options,
            }
        )
        return decoded_task(task) if decoded else task

    def require_outputs(self, network: Network, image: Array, seen: str) -> None:
        size = network.preprocess.height, network.preprocess.width
        batch = ImageBatch(np.arange(len(image)), image, (network.preprocess.place(*size),) * len(image))
        try:
            self.answer(network, batch)
        except (BundleError, ValueError, IndexError) as error:
            raise ModelError(
                f"{seen}: the outputs do not fit the decoder {network.task.decode!r} ({error})",
                allowed="a decoder that reads them",
                remedy="name another as task.decode, or kind: tensors to compare raw outputs",
            ) from None

    def train(self, model: nn.Module, training: Training) -> float:
        """There is nothing to train on; `check` has refused every epoch."""
        return math.nan

    def answers(self, network: Network, images: ImageSet) -> dict[str, Array]:
        """The network's answers to each image, as `AnsweredImages` keep them."""
        found: dict[str, list[Array]] = {}
        for batch in full_batches(images, network.preprocess, network.batch):
            for name, array in self.answer(network, batch).items():
                found.setdefault(name, []).append(array[: len(batch.places)].copy())
        return self.joined(found)

    def joined(self, found: Mapping[str, list[Array]]) -> dict[str, Array]:
        return {name: np.concatenate(parts) for name, parts in found.items()}

    @abstractmethod
    def answer(self, network: Network, batch: ImageBatch) -> Arrays:
        """One answer for each image of the batch."""

    def evaluate(self, network: Network, images: ImageSet) -> dict[str, float]:
        return self.measure(network, images).values

    def measure(self, network: Network, images: ImageSet) -> Evaluation:
        """Each image is a part."""
        shares = self.per_image(network, images)
        return Evaluation({self.metrics[0]: float(np.mean(shares))}, tuple(shares.tolist()))

    def per_image(self, network: Network, images: ImageSet) -> NDArray[np.float64]:
        """The leading metric of each image."""
        truth, shares = answered(images).answers, np.zeros(len(images))
        for batch in full_batches(images, network.preprocess, network.batch):
            answers = self.answer(network, batch)
            for row, place in enumerate(batch.places.tolist()):
                shares[place] = self.share(
                    {name: array[place] for name, array in truth.items()},
                    {name: array[row] for name, array in answers.items()},
                )
        return shares

    def share(self, truth: Arrays, found: Arrays) -> float:
        """Agreement of the answers to one image, in [0, 1]."""
        raise NotImplementedError

    def score(self, images: ImageSet, preprocess: Preprocess, reference: Path) -> Score:
        task, metric = self.outputs_mean(()), self.metrics[0]
        answers = self.answers(onnx_network(reference, preprocess, task), images)
        truth = AnsweredImages(images.items, None, images.classes, answers)

        def of(path: Path) -> float:
            return 100 * self.evaluate(onnx_network(path, preprocess, task), truth)[metric]

        return Score(metric, "%", of, data=truth.digest() + preprocess.digest() + task.model_dump_json())


class ClassifyAgreement(AgreementTask):
    """The share of images with the same likeliest class."""

    metrics: ClassVar[tuple[str, ...]] = ("agreement-top1",)

    def answer(self, network: Network, batch: ImageBatch) -> Arrays:
        scores = the_output(network.predict(batch.rows))
        return {"classes": scores.reshape(len(scores), -1).argmax(axis=1)}

    def share(self, truth: Arrays, found: Arrays) -> float:
        return float(truth["classes"] == found["classes"])

    def chance(self, images: ImageSet) -> float:
        """The share of the class that the original names most often."""
        return float(np.bincount(answered(images).answers["classes"]).max() / len(images))


class SegmentAgreement(AgreementTask):
    """Mean overlap of the pixels of each class that either network sees."""

    metrics: ClassVar[tuple[str, ...]] = ("agreement-iou",)

    def answer(self, network: Network, batch: ImageBatch) -> Arrays:
        scores = the_output(network.predict(batch.rows))
        if scores.ndim != 4:
            raise BundleError(f"outputs of shape {scores.shape}", allowed="(batch, classes, height, width)")
        if scores.shape[1] == 1:
            return {"maps": (scores[:, 0] > float(network.task.options.get("threshold", 0.0))).astype(np.uint8)}
        return {"maps": scores.argmax(axis=1).astype(np.uint8)}

    def share(self, truth: Arrays, found: Arrays) -> float:
        first, second = truth["maps"], found["maps"]
        shares = [
            ((first == index) & (second == index)).sum() / ((first == index) | (second == index)).sum()
            for index in np.union1d(first, second)
        ]
        return float(np.mean(shares))


class MatteAgreement(AgreementTask):
    """1 - mean absolute error of the opacity."""

    metrics: ClassVar[tuple[str, ...]] = ("agreement-mae",)

    def answer(self, network: Network, batch: ImageBatch) -> Arrays:
        outputs = network.predict(batch.rows)
        alpha = the_output(outputs, str(network.task.options.get("output", "")) or next(iter(outputs)))
        return {"alpha": np.clip(alpha, 0, 1).astype(np.float16)}

    def share(self, truth: Arrays, found: Arrays) -> float:
        return 1 - float(np.abs(truth["alpha"].astype(np.float32) - found["alpha"].astype(np.float32)).mean())


class TensorAgreement(AgreementTask):
    """Cosine of the outputs, the lowest of all outputs; 0 where it is negative."""

    metrics: ClassVar[tuple[str, ...]] = ("agreement-cosine",)

    def answer(self, network: Network, batch: ImageBatch) -> Arrays:
        return {name: array.astype(np.float32) for name, array in network.predict(batch.rows).items()}

    def share(self, truth: Arrays, found: Arrays) -> float:
        return max(0.0, min(_cosine(a, b) for a, b in zip(truth.values(), found.values(), strict=True)))


def answered(images: ImageSet) -> AnsweredImages:
    if not isinstance(images, AnsweredImages):
        raise ImageError("the original has not answered to these images yet", allowed="images with its answers")
    return images


def _cosine(first: Array, second: Array) -> float:
    a, b = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else float(np.array_equal(a, b))
