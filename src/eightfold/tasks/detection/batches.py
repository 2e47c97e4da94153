"""Training batches of images with boxes: the same batch for the same number every time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import interpolate

from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.train.hooks import Batch
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.detection.augment import Cut, DetectionAugment, Labelled, augmented
from eightfold.tasks.detection.targets import padded_targets

STEP = 32  # of sides in multi-scale training
SMALLEST, LARGEST = 0.67, 1.5


@dataclass(frozen=True)
class DetectionBatches:
    """Shuffled, augmented batches; crowds are left out.

    Attributes:
        images: what to train on; the last batch of an epoch is dropped where it is not full.
        preprocess: its geometry comes before augmentation, its arithmetic after.
        batch: images per batch, as many as there are at most.
        multi_scale: each optimizer step has sides of 67% to 150%, in multiples of 32.
        accumulate: batches of one optimizer step, which have one size.
        seed: with the batch's number, fixes everything random.
        cut: boxes dropped because augmentation cut them.
    """

    images: BoxedImages
    preprocess: Preprocess
    batch: int
    augment: DetectionAugment
    multi_scale: bool = False
    accumulate: int = 1
    seed: int = 0
    cut: Cut = field(default_factory=Cut)

    def __len__(self) -> int:
        return len(self.images) // self.batch

    def __call__(self, number: int) -> Batch:
        epoch, place = divmod(number, len(self))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        chosen = order[place * self.batch : (place + 1) * self.batch].tolist()
        rng = np.random.default_rng((self.seed, 1, number))
        rows = [self._row(index, rng) for index in chosen]
        ready = torch.from_numpy(np.stack([self.preprocess(row.image) for row in rows]))
        targets = padded_targets([row.boxes for row in rows], [row.classes for row in rows])
        if self.multi_scale:
            ready, targets = self._resized(ready, targets, number // self.accumulate)
        return Batch((ready,), targets)

    def _row(self, index: int, rng: np.random.Generator) -> Labelled:
        size = self.preprocess.height, self.preprocess.width
        return augmented(self._load, index, len(self.images), size, rng, self.augment, self.cut)

    def _load(self, index: int) -> Labelled:
        """An image in the geometry of the preprocessing, in RGB, uint8."""
        pixels, objects = self.images.load(index), self.images.objects[index]
        placement = self.preprocess.place(*pixels.shape[:2])
        single = ~objects.crowd
        boxes = placement.boxes_to_tensor(objects.boxes[single]).astype(np.float64)
        side = np.array([self.preprocess.width, self.preprocess.height] * 2)
        boxes = np.clip(boxes, 0, side)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return Labelled(self._geometry(pixels), boxes[kept], objects.classes[single][kept])

    def _geometry(self, pixels: np.ndarray) -> np.ndarray:
        plain = self.preprocess.model_copy(
            update={"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "color": "rgb", "layout": "nhwc"}
        )
        return np.clip(np.rint(np.asarray(plain(pixels), np.float32)), 0, 255).astype(np.uint8)

    def _resized(self, ready: torch.Tensor, targets: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(self.preprocess.height, self.preprocess.width)
        low, high = max(1, round(SMALLEST * longest / STEP)), max(1, round(LARGEST * longest / STEP))
        side = STEP * int(np.random.default_rng((self.seed, 2, step)).integers(low, high + 1))
        height, width = (
            max(STEP, round(own * side / longest / STEP) * STEP)
            for own in (self.preprocess.height, self.preprocess.width)
        )
        scale = torch.tensor([1.0, *[width / ready.shape[3], height / ready.shape[2]] * 2])
        grown = torch.where(targets[..., :1] >= 0, targets * scale, targets)
        return interpolate(ready, (height, width), mode="bilinear", align_corners=False), grown
