"""Measures the difference between two networks on labelled images: the metric of each; for classifiers top-1, and their
agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.calib.images.data_reader import batched, open_data, peeked
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import ImageSource, open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError, UsageError
from eightfold.export.compare.runnables import Runnable
from eightfold.values import Frozen

# Of networks that take any number of images.
USUAL_BATCH = 8


class Agreement(Frozen):
    """Two networks on the same labelled images.

    Attributes:
        first, second: their names.
        metric: what is measured: top-1, the share of the images whose largest output is at their label; mAP50-95 ...
        first_value, second_value: of each, in [0, 1].
        agreement: of classifiers, the share of the images for which both have their largest output at the same place.
        images: how many there are.
    """

    first: str
    second: str
    metric: str = "top-1"
    first_value: float
    second_value: float
    agreement: float | None = None
    images: int

    def describe(self) -> str:
        """Text for a person: both values, the difference, and the agreement."""
        points = 100 * (self.second_value - self.first_value)
        words = (
            f"{self.metric} on {self.images} images: {self.first_value:.2%} {self.first}, {self.second_value:.2%} "
            f"{self.second} ({points:+.2f} points)"
        )
        return words if self.agreement is None else f"{words}; the two agree on {self.agreement:.2%}"


Judge = Callable[[Runnable, Runnable, Any, tuple[Preprocess, Preprocess]], Agreement]
"""Measures two networks on labelled images, each with its own preprocessing."""


def compare_classifiers(
    first: Runnable, second: Runnable, images: ImageSource, preprocess: tuple[Preprocess, Preprocess]
) -> Agreement:
    """Run two classifiers, each at its own batch, on the same labelled images.

    Args:
        first, second: what `runnable_of` opens, with one image input and one output of scores (batch, classes).
        images: labelled: a folder LABEL/*, or whatever else `open_images` takes.
        preprocess: makes the input of either.

    Raises:
        ImageError: the images have no labels, or cannot be read.
        UsageError: one of the two is no classifier.
        CalibrationError: `preprocess` does not make their input.
    """
    opened = open_images(images)
    if opened.labels is None:
        raise ImageError("these images have no labels", allowed="a folder for each label: FOLDER/LABEL/*")
    labels = np.asarray(opened.labels)
    answers = [_answers(each, opened, rules) for each, rules in zip((first, second), preprocess, strict=True)]
    return Agreement(
        first=first.name,
        second=second.name,
        first_value=float(np.mean(answers[0] == labels)),
        second_value=float(np.mean(answers[1] == labels)),
        agreement=float(np.mean(answers[0] == answers[1])),
        images=len(labels),
    )


def _answers(subject: Runnable, images: ImageSet, preprocess: Preprocess) -> NDArray[np.int64]:
    """The place of each image's largest output."""
    if len(subject.inputs) > 1:
        raise UsageError(f"{subject.name} takes {len(subject.inputs)} inputs", allowed="one, of images")
    name, shape = (subject.inputs[0].name, subject.inputs[0].shape) if subject.inputs else ("images", (USUAL_BATCH,))
    rows = open_data(images, preprocess, shape[1:] or (-1, -1, -1))
    _, stream = peeked(rows, f"running {subject.name}")
    found = np.concatenate(list(_scores(subject, name, shape[0], (row for _, row in stream))))
    if rows.tally.skipped:
        raise ImageError(f"{rows.tally.skipped} images cannot be read", allowed="none", remedy=rows.tally.first_reason)
    best: NDArray[np.int64] = found.argmax(axis=1)
    return best


def _scores(subject: Runnable, name: str, batch: int, rows: Iterator[Array]) -> Iterator[Array]:
    for chunk in batched(rows, batch):
        filled = np.stack([*chunk, *[chunk[-1]] * (batch - len(chunk))])  # the last one is run again
        outputs = list(subject.run(subject.fed({name: filled})).values())
        if len(outputs) != 1 or outputs[0].size == 0 or outputs[0].reshape(len(filled), -1).shape[1] < 2:
            shown = ", ".join(str(output.shape) for output in outputs)
            raise UsageError(f"{subject.name} puts out {shown}", allowed="scores (batch, classes) of a classifier")
        yield outputs[0].reshape(len(filled), -1)[: len(chunk)]
