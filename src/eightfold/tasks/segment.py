"""Semantic segmentation: images with masks, cross-entropy over pixels, mean intersection over union."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.errors import BundleError, ImageError, ModelError, RecipeError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.dense import Segment
from eightfold.tasks.base import Network, Training
from eightfold.tasks.dense.dense_task import DenseTask
from eightfold.tasks.dense.masked_images import CLASSES, MASKS, UNKNOWN, MaskedImages, mask_in_tensor, open_masks
from eightfold.tasks.dense.picture_batches import PictureBatches
from eightfold.tasks.inputs import full_batches
from eightfold.zoo.datasets.masked_scenes import write_masked_scenes

if TYPE_CHECKING:
    from torch import Tensor, nn


class SegmentTask(DenseTask):
    """Folders images/ and masks/; cross-entropy; mean IoU over the classes, and the share of pixels that are right."""

    metrics = ("miou", "pixel-accuracy")
    decode, gives, plural, truths, leading = "segment", "segments", "masks", MASKS, "mIoU"

    def generate(self, directory: Path, *, train: int, test: int, side: int, seed: int) -> Path:
        return write_masked_scenes(directory, train=train, test=test, side=side, seed=seed)

    def checked_classes(self, source: Path) -> tuple[str, ...]:
        classes = open_masks(source / "train", self.section.labels).classes
        open_masks(source / "test", classes)
        return classes

    def labelled_images(self, folder: Path) -> MaskedImages:
        return open_masks(folder)

    def outputs_mean(self, classes: tuple[str, ...], *, decoded: bool = False) -> Task:
        return Task(kind="segment", decode=self.decode, labels=classes, options=self.section.options)

    def require_outputs(self, network: Network, image: Array, seen: str) -> None:
        size, classes = (network.preprocess.height, network.preprocess.width), len(network.task.labels)
        outputs = network.predict(image)
        try:
            _decoder(network.task)(outputs, [network.preprocess.place(*size)] * len(image))
        except BundleError as error:
            raise ModelError(f"{seen}: {error.seen}", allowed=error.allowed) from None
        (scores,) = outputs.values()
        if scores.shape[1] != classes and (scores.shape[1], classes) != (1, 2):
            raise ModelError(
                f"{seen}: the network knows {scores.shape[1]} classes and the masks {classes}",
                allowed="as many, or one map of scores for two classes",
                remedy=f"name all classes in {CLASSES}, or build the network with as many",
            )

    def train(self, model: nn.Module, training: Training) -> float:
        images, batch = _masked(training.images), min(training.section.batch, len(training.images))
        return training.fit(model, MaskBatches(images, training.preprocess, batch, training.seed), segmentation_loss)

    def evaluate(self, network: Network, images: ImageSet) -> dict[str, float]:
        counts = self._confusion(network, images)
        right = np.diag(counts).astype(float)
        either = counts.sum(0) + counts.sum(1) - right
        mean = float((right[either > 0] / either[either > 0]).mean()) if either.any() else 0.0
        return dict(zip(self.metrics, (mean, float(right.sum() / max(counts.sum(), 1))), strict=True))

    def _confusion(self, network: Network, images: ImageSet) -> NDArray[np.int64]:
        """[truth, answer] in pixels; answers outside of the tensor are wrong in a column of their own."""
        masked, decode = _masked(images), _decoder(network.task)
        size = 1 + max(len(masked.classes), 2)
        counts = np.zeros((size, size), np.int64)
        for batch in full_batches(images, network.preprocess, network.batch):
            found = decode(network.predict(batch.rows), batch.placements)
            for answer, place in zip(found, batch.places.tolist(), strict=True):
                truth = masked.mask(place)
                known = truth != UNKNOWN
                answers = np.minimum(answer.classes[known], size - 1).astype(np.int64)
                pairs = truth[known].astype(np.int64) * size + answers
                counts += np.bincount(pairs, minlength=size * size).reshape(size, size)
        counts[-1, -1] = 0
        return counts

    def chance(self, images: ImageSet) -> float:
        """Mean IoU of the most common class everywhere."""
        masked = _masked(images)
        pixels = np.zeros(256, np.int64)
        for index in range(len(masked)):
            pixels += np.bincount(masked.mask(index).ravel(), minlength=256)
        known = pixels[:UNKNOWN]
        return float(known.max() / known.sum() / np.count_nonzero(known))


def segmentation_loss(outputs: object, target: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that are known; scores of a coarser grid are interpolated to the target's.

    Args:
        outputs: (batch, classes, h, w), the first such tensor where there are several; one class: scores of class 1.
        target: (batch, H, W) classes, 255 where unknown.
    """
    from torch.nn import functional as F

    from eightfold.export.verify.module_runs import output_tensors

    scores = next(tensor for _, tensor in output_tensors(outputs) if tensor.dim() == 4).float()
    if scores.shape[2:] != target.shape[1:]:
        scores = F.interpolate(scores, target.shape[1:], mode="bilinear", align_corners=False)
    known = (target != UNKNOWN).float()
    if scores.shape[1] > 1:
        losses = F.cross_entropy(scores, target, ignore_index=UNKNOWN, reduction="none")
    else:
        losses = known * F.binary_cross_entropy_with_logits(scores[:, 0], (target == 1).float(), reduction="none")
    return losses.sum() / known.sum().clamp(min=1)


class MaskBatches(PictureBatches[MaskedImages]):
    """Pairs (b, 3, h, w) and (b, h, w): images and classes, in the geometry of the preprocessing."""

    def truth(self, index: int) -> Array:
        mask = self.images.mask(index)
        return mask_in_tensor(mask, self.preprocess.place(*mask.shape))

    def pair(self, rows: Array, truth: Array) -> tuple[Tensor, Tensor]:
        import torch

        return torch.from_numpy(rows), torch.from_numpy(truth.astype(np.int64))


def _masked(images: ImageSet) -> MaskedImages:
    if not isinstance(images, MaskedImages):
        raise ImageError("these images have no masks", allowed="folders images/ and masks/ of the same names")
    return images


def _decoder(task: Task) -> Segment:
    decoder = decoder_of(task)
    if not isinstance(decoder, Segment):
        raise RecipeError(f"task.decode is {task.decode!r}", allowed=SegmentTask.decode)
    return decoder
