"""Predictions as plain frozen data; `to_dict` is their JSON form, `str()` one line for a terminal."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.json_types import JsonDict

SHOWN = 10  # objects in one line for a terminal


class Result(Protocol):
    """Interface of every task's answer."""

    def to_dict(self) -> JsonDict:
        """JSON-able."""


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Classification:
    """The likeliest classes, best first."""

    top: tuple[ClassScore, ...]

    @property
    def index(self) -> int:
        """Index of the best class."""
        return self.top[0].index

    @property
    def label(self) -> str:
        """Name of the best class."""
        return self.top[0].label

    @property
    def probability(self) -> float:
        """Probability of the best class."""
        return self.top[0].probability

    def to_dict(self) -> JsonDict:
        return {"kind": "classification", **asdict(self)}

    def __str__(self) -> str:
        return ", ".join(f"{score.label} {score.probability:.1%}" for score in self.top)


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found, best score first.

    Attributes:
        boxes: (n, 4) float32, x1, y1, x2, y2 in pixels of the original image.
        scores: (n,) float32.
        classes: (n,) int64.
        labels: the name of each object's class.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> JsonDict:
        columns = zip(self.boxes.tolist(), self.scores.tolist(), self.classes.tolist(), self.labels, strict=True)
        objects = [{"box": box, "score": score, "class": index, "label": label} for box, score, index, label in columns]
        return {"kind": "detections", "objects": objects}

    def __str__(self) -> str:
        """Counts by label, then label, score and corners of the best ones."""
        if not len(self):
            return "nothing found"
        counts = ", ".join(f"{count} {label}" for label, count in Counter(self.labels).most_common())
        columns = zip(self.labels, self.scores.tolist(), self.boxes.tolist(), strict=True)
        shown = [
            f"{label} {score:.1%} [{' '.join(f'{edge:.0f}' for edge in box)}]"
            for label, score, box in itertools.islice(columns, SHOWN)
        ]
        more = [f"{len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return f"{counts}: {', '.join([*shown, *more])}"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of each pixel.

    Attributes:
        classes: (H, W) uint8 over the original image; 255 where the network did not look.
        labels: names by class index.
    """

    classes: NDArray[np.uint8]
    labels: tuple[str, ...]

    def shares(self) -> dict[str, float]:
        """Label -> share of the image's pixels, largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=256)[:255]
        order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
        return {label_of(self.labels, index): float(counts[index] / self.classes.size) for index in order}

    def to_dict(self) -> JsonDict:
        return {"kind": "segmentation", "size": list(self.classes.shape), "shares": self.shares()}

    def __str__(self) -> str:
        return ", ".join(f"{label} {share:.1%}" for label, share in list(self.shares().items())[:5])


@dataclass(frozen=True, eq=False)
class Matte:
    """Opacity of the foreground.

    Attributes:
        alpha: (H, W) float32 in 0..1 over the original image.
    """

    alpha: NDArray[np.float32]

    def composite(self, image: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`image` over `background`, which is an image of the same size or one colour (3,); uint8."""
        alpha = self.alpha[..., None]
        mixed = alpha * image.astype(np.float32) + (1 - alpha) * background.astype(np.float32)
        return np.asarray(np.floor(mixed + np.float32(0.5)), np.uint8)

    def to_dict(self) -> JsonDict:
        return {"kind": "matte", "size": list(self.alpha.shape), "coverage": float(self.alpha.mean())}

    def __str__(self) -> str:
        return f"foreground covers {self.alpha.mean():.1%}"


@dataclass(frozen=True, eq=False)
class Tensors:
    """The network's outputs for one image, by name."""

    arrays: dict[str, Array]

    def to_dict(self) -> JsonDict:
        return {"kind": "tensors", "arrays": {name: array.tolist() for name, array in self.arrays.items()}}

    def __str__(self) -> str:
        return ", ".join(f"{name} {array.shape}" for name, array in self.arrays.items())


def label_of(labels: tuple[str, ...], index: int) -> str:
    """The name of a class; a class without a name is its own number."""
    return labels[index] if 0 <= index < len(labels) else str(index)
