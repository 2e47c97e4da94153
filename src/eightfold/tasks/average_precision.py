"""Mean average precision as COCO defines it (https://cocodataset.org/#detection-eval): the mean over classes, and over
overlaps of 0.50, 0.55 ... 0.95 that a box must have to count as found, with at most 100 detections per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eightfold.extras import require
from eightfold.json_types import JsonDict
from eightfold.runtime.postprocess.results import Detections
from eightfold.tasks.base import PARTS, Evaluation
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.boxes import coco_content


def average_precision(images: BoxedImages, found: Sequence[Detections]) -> dict[str, float]:
    """mAP of what was found in each image against what is annotated there, in [0, 1].

    Args:
        images: at least one object is annotated.
        found: for each image in turn; boxes in pixels of the image, classes as in `images`.

    Returns:
        "map50-95", over all overlaps, and "map50".
    """
    precision = _precision(images, found)
    return {"map50-95": _mean(precision), "map50": _mean(precision[0])}


def average_precision_by_class(images: BoxedImages, found: Sequence[Detections]) -> dict[str, dict[str, float]]:
    """The same for each class that some image shows: class -> "mAP50-95" and "mAP50"."""
    precision = _precision(images, found)
    shown = [(place, name) for place, name in enumerate(images.classes) if (precision[..., place] > -1).any()]
    return {
        name: {"mAP50-95": _mean(precision[..., place]), "mAP50": _mean(precision[0, :, place])}
        for place, name in shown
    }


def _precision(images: BoxedImages, found: Sequence[Detections]) -> NDArray[np.float64]:
    """(overlaps, recalls, classes) at all sizes and the most detections; -1 for classes that no image shows."""
    coco = require("faster_coco_eval", "measure mean average precision")
    names = [str(place) for place in range(len(images))]
    truth = coco.COCO(coco_content(images, names))
    evaluation = coco.COCOeval_faster(truth, truth.loadRes(_rows(found)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][..., 0, -1]
    return precision


def jackknife(images: BoxedImages, found: Sequence[Detections], metric: str) -> Evaluation:
    """mAP; its parts are the pseudo-values of the jackknife over PARTS groups of images (Efron and Tibshirani, 1993,
    chapter 11), since mAP is no mean over images."""
    values, count = average_precision(images, found), min(PARTS, len(images))
    kept = [np.setdiff1d(np.arange(len(images)), np.arange(part, len(images), count)) for part in range(count)]
    left = [
        average_precision(images.subset(places.tolist()), [found[place] for place in places])[metric]
        for places in kept
        if any(len(images.objects[place].classes) for place in places)
    ]
    parts = [count * values[metric] - (count - 1) * each for each in left]
    return Evaluation(values, tuple(parts) if len(parts) == count else ())


def _rows(found: Sequence[Detections]) -> list[JsonDict]:
    return [
        {"image_id": place, "category_id": index, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for place, each in enumerate(found)
        for (x1, y1, x2, y2), score, index in zip(
            each.boxes.tolist(), each.scores.tolist(), each.classes.tolist(), strict=True
        )
    ]


def _mean(precision: NDArray[np.float64]) -> float:
    return float(precision[precision > -1].mean())
