"""Decoded answers of an INT8 graph beside those of its float original: boxes found again, scores that move, classes
that change. A box that is lost shows here, where no figure over the outputs tells it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eightfold.arrays import Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.errors import BundleError
from eightfold.export.fixed_size.fix_shapes import has_channels_last
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.results import Classification, Detections, Result, Segmentation
from eightfold.values import Frozen

LEAST_OVERLAP = 0.5  # intersection over union of two boxes that are the same object
LEAST_KEPT = 0.9  # share of the answers that stay
MOST_SHIFT = 0.1  # mean distance of the scores of answers that stay


class DecodedErrors(Frozen):
    """Differences between decoded answers, over some images.

    Args:
        answers: classes, pixels in thousands or boxes that the float graph gives.
        what: what they are called.
        kept: how many of them are in the INT8 answer as well, with the same class.
        flipped: boxes that are there with another class, or images or pixels of another class.
        added: boxes that only the INT8 answer has.
        mean_shift, largest_shift: distance of the scores of those that are kept.
    """

    answers: int
    what: str
    kept: int
    flipped: int = 0
    added: int = 0
    mean_shift: float = 0.0
    largest_shift: float = 0.0

    @property
    def fair(self) -> bool:
        """True where nearly all answers stay, with about their scores."""
        enough = self.kept >= LEAST_KEPT * self.answers and self.added <= (1 - LEAST_KEPT) * max(self.answers, 10)
        return enough and self.mean_shift <= MOST_SHIFT

    def describe(self) -> str:
        lost = self.answers - self.kept - self.flipped
        words = [f"decoded: {self.kept} of {self.answers} {self.what} stay", f"{self.flipped} change their class"]
        if self.what == "boxes":
            words += [f"{lost} are lost", f"{self.added} are new"]
        words.append(f"scores move by {self.mean_shift:.3f} on average and {self.largest_shift:.3f} at most")
        return ", ".join(words)


def size_of_images(shape: tuple[int, ...]) -> Size:
    """Height and width of a network's images: of four axes those that are not the few channels."""
    return shape[1:3] if len(shape) == 4 and has_channels_last(shape) else shape[-2:]  # type: ignore[return-value]


def decoded_errors(task: Task, known: Sequence[Arrays], seen: Sequence[Arrays], size: Size) -> DecodedErrors | None:
    """Decode the answers of both graphs and compare them; None where the task's decoder gives nothing to compare.

    Args:
        task: what the outputs mean.
        known, seen: answers of the float graph and of the other one to the same runs.
        size: height and width of the network's images, in pixels.
    """
    decode = decoder_of(task)

    def decoded(answers: Sequence[Arrays]) -> Iterator[Result]:
        for outputs in answers:
            rows = len(next(iter(outputs.values())))
            yield from decode(dict(outputs), [Placement(size, size, (0, 0), size)] * rows)

    try:
        pairs = list(zip(decoded(known), decoded(seen), strict=True))
    except BundleError:  # the outputs are not what the decoder reads
        return None
    if pairs and isinstance(pairs[0][0], Detections):
        return _boxes(pairs)
    if pairs and isinstance(pairs[0][0], Classification):
        return _classes(pairs)
    return _pixels(pairs) if pairs and isinstance(pairs[0][0], Segmentation) else None


def _classes(pairs: Sequence[tuple[Any, Any]]) -> DecodedErrors:
    kept = [(before, after) for before, after in pairs if before.index == after.index]
    shifts = [abs(before.probability - after.probability) for before, after in kept]
    return DecodedErrors(
        answers=len(pairs), what="classes", kept=len(kept), flipped=len(pairs) - len(kept), **_shifts(shifts)
    )


def _pixels(pairs: Sequence[tuple[Any, Any]]) -> DecodedErrors:
    same = [before.classes == after.classes for before, after in pairs]
    count, kept = sum(each.size for each in same), sum(int(each.sum()) for each in same)
    return DecodedErrors(answers=count, what="pixels", kept=kept, flipped=count - kept)


def _boxes(pairs: Sequence[tuple[Any, Any]]) -> DecodedErrors:
    answers = kept = flipped = added = 0
    shifts: list[float] = []
    for before, after in pairs:
        free = np.ones(len(after.boxes), bool)
        answers += len(before.boxes)
        for box, score, label in zip(before.boxes, before.scores, before.classes, strict=True):
            overlap = np.where(free, _overlaps(box, after.boxes), 0.0)
            fits = overlap >= LEAST_OVERLAP
            if not fits.any():
                continue
            same = fits & (after.classes == label)
            place = int(np.argmax(np.where(same if same.any() else fits, overlap, -1.0)))
            free[place] = False
            if same.any():
                kept += 1
                shifts.append(abs(float(score) - float(after.scores[place])))
            else:
                flipped += 1
        added += int(free.sum())
    return DecodedErrors(answers=answers, what="boxes", kept=kept, flipped=flipped, added=added, **_shifts(shifts))


def _shifts(shifts: Sequence[float]) -> dict[str, float]:
    return {"mean_shift": float(np.mean(shifts)), "largest_shift": max(shifts)} if shifts else {}


def _overlaps(box: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Intersection over union of one box with others."""
    if not len(boxes):
        return np.zeros(0)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0).astype(np.float64), axis=1)
    areas = np.prod((boxes[:, 2:] - boxes[:, :2]).astype(np.float64), axis=1)
    own = float(np.prod((box[2:] - box[:2]).astype(np.float64)))
    overlaps: npt.NDArray[np.float64] = shared / np.maximum(areas + own - shared, 1e-12)
    return overlaps
