"""Agreement of a detector with the original network, whose detections are the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.image_set import ImageSet
from eightfold.errors import ImageError
from eightfold.extras import require
from eightfold.json_types import JsonDict
from eightfold.recipe import Recipe
from eightfold.runtime.postprocess import decoder_class, decoder_of
from eightfold.runtime.postprocess.results import Detections
from eightfold.tasks.agreement import AgreementTask, answered
from eightfold.tasks.average_precision import average_precision, jackknife
from eightfold.tasks.base import Evaluation, Network
from eightfold.tasks.boxed_images import BoxedImages, Objects
from eightfold.tasks.inputs import ImageBatch, full_batches

# Detections of the other network down to this score are ranked against the original's.
LOWEST_SCORE = 0.01
NOTHING = "the original finds nothing on the held-out images"


class DetectAgreement(AgreementTask):
    """Average precision against the original's detections."""

    metrics: ClassVar[tuple[str, ...]] = ("agreement-map50", "agreement-map50-95")

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        require("faster_coco_eval", "measure mean average precision")

    def answer(self, network: Network, batch: ImageBatch) -> Arrays:
        """Rows (image, most objects, 6) of x1, y1, x2, y2, score, class; unused ones have class -1."""
        found = _detections(network, batch, {})
        most = max((len(each) for each in found), default=0)
        rows = np.full((len(found), max(most, 1), 6), -1.0, np.float32)
        for place, each in enumerate(found):
            rows[place, : len(each)] = np.column_stack((each.boxes, each.scores, each.classes))
        return {"objects": rows}

    def joined(self, found: Mapping[str, list[Array]]) -> dict[str, Array]:
        parts = found["objects"]
        most = max(part.shape[1] for part in parts)
        padded = [np.pad(part, ((0, 0), (0, most - part.shape[1]), (0, 0)), constant_values=-1.0) for part in parts]
        objects = np.concatenate(padded)
        if not (objects[..., 5] >= 0).any():
            raise ImageError(
                NOTHING,
                allowed="images like the training data, with the same preprocessing",
                remedy="give other images, the right preprocess, or a lower task.options.score_threshold",
            )
        return {"objects": objects}

    def evaluate(self, network: Network, images: ImageSet) -> dict[str, float]:
        return _named(average_precision(*self.found(network, images)))

    def measure(self, network: Network, images: ImageSet) -> Evaluation:
        made = jackknife(*self.found(network, images), "map50")
        return Evaluation(_named(made.values), made.parts)

    def found(self, network: Network, images: ImageSet) -> tuple[BoxedImages, list[Detections]]:
        """The original's detections as boxes of the images, and what the network finds there."""
        objects = [row[row[:, 5] >= 0] for row in answered(images).answers["objects"]]
        classes = 1 + int(max(row[:, 5].max(initial=0) for row in objects))
        truth = tuple(Objects.of([(each[:4].tolist(), int(each[5]), False) for each in row]) for row in objects)
        boxed = BoxedImages(images.items, None, tuple(map(str, range(classes))), truth)
        found: list[Detections] = []
        for batch in full_batches(images, network.preprocess, network.batch):
            found += _detections(network, batch, {"score_threshold": LOWEST_SCORE})
        return boxed, [_of_classes(each, classes) for each in found]


def _named(values: Mapping[str, float]) -> dict[str, float]:
    return {"agreement-map50": values["map50"], "agreement-map50-95": values["map50-95"]}


def _detections(network: Network, batch: ImageBatch, options: JsonDict) -> list[Detections]:
    known = set(decoder_class(network.task.decode).model_fields)
    more = {name: value for name, value in options.items() if name in known}
    task = network.task.model_copy(update={"options": {**network.task.options, **more}})
    decode: Any = decoder_of(task)
    found: list[Detections] = decode(network.predict(batch.rows), batch.placements)
    return found


def _of_classes(found: Detections, classes: int) -> Detections:
    """Without classes that the original never names, which no truth can be held against."""
    kept = found.classes < classes
    labels = tuple(label for label, keep in zip(found.labels, kept.tolist(), strict=True) if keep)
    return Detections(found.boxes[kept], found.scores[kept], found.classes[kept], labels)
