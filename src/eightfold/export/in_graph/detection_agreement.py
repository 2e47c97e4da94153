"""Counts the detections that two decoders share, and names the part that differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np

from eightfold.runtime.postprocess.results import Detections

# Two detections are the same one within these; a box at the very threshold may fall on either side of it.
BOX_PIXELS, SCORE = 0.5, 1e-3
LEAST_AGREEMENT = 0.99
Part = Literal["boxes", "scores", "classes"]


@dataclasses.dataclass(frozen=True)
class DetectionAgreement:
    """Numbers of detections by two ways, of those in both, and the distance of their boxes."""

    found: int
    same: int
    pixels: float

    @property
    def enough(self) -> bool:
        """True if the share of common detections suffices."""
        return self.same >= LEAST_AGREEMENT * self.found


def agreement(
    inside: Iterable[Sequence[Detections]], outside: Iterable[Sequence[Detections]], *, but: Part | None = None
) -> DetectionAgreement:
    """Over the images of several runs; `but` names what is not looked at."""
    pairs = [pair for runs in zip(inside, outside, strict=True) for pair in zip(*runs, strict=True)]
    each = [_on_image(*pair, but) for pair in pairs]
    return DetectionAgreement(sum(a.found for a in each), sum(a.same for a in each), max(a.pixels for a in each))


def differing_part(inside: Sequence[Sequence[Detections]], outside: Sequence[Sequence[Detections]]) -> str:
    """The part without which the two agree: "boxes", "scores" or "classes"; "rows" where there is no such part."""
    return next((part for part in get_args(Part) if agreement(inside, outside, but=part).enough), "rows")


def _on_image(inside: Detections, outside: Detections, but: Part | None) -> DetectionAgreement:
    """Each one with the nearest of the same class that is not taken."""
    left, same, pixels = np.ones(len(inside), bool), 0, 0.0
    for box, score, label in zip(outside.boxes, outside.scores, outside.classes, strict=True):
        fits = left.copy()
        fits &= (but == "classes") | (inside.classes == label)
        fits &= (but == "scores") | (np.abs(inside.scores - score) <= SCORE)
        apart = np.where(fits, np.abs(inside.boxes - box).max(axis=1), np.inf) if len(inside) else np.array([np.inf])
        nearest = int(np.argmin(apart))
        if apart[nearest] <= (np.finfo(np.float32).max if but == "boxes" else BOX_PIXELS):
            left[nearest], same, pixels = False, same + 1, max(pixels, float(apart[nearest]))
    return DetectionAgreement(max(len(inside), len(outside)), same, pixels)
