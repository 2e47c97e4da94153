"""Classification: the likeliest classes. Definitions: docs/decoders.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eightfold.calib.geometry import Placement
from eightfold.errors import UsageError
from eightfold.runtime.backends.base import Array, Arrays
from eightfold.runtime.results import Classification, ClassScore


@dataclass(frozen=True)
class TopK:
    """Top-k classes of one output shaped (batch, classes).

    Attributes:
        labels: names by index; an index without a name is its own name.
        k: how many.
        activation: what turns the outputs into probabilities; "none" when the graph has done it.
    """

    labels: tuple[str, ...] = ()
    k: int = 5
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k is {self.k}", allowed="1 or more")
        if self.activation not in _ACTIVATIONS:
            raise UsageError(f"activation {self.activation!r}", allowed=", ".join(_ACTIVATIONS))

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Classification]:
        (scores,) = outputs.values()
        rows = np.asarray(scores[: len(placements)], np.float32).reshape(len(placements), -1)
        return [self._row(row) for row in _ACTIVATIONS[self.activation](rows)]

    def _row(self, probabilities: Array) -> Classification:
        # Sorting is stable, so that equal scores rank by index in every runtime.
        best = np.argsort(-probabilities, kind="stable")[: self.k]
        return Classification(
            tuple(ClassScore(int(index), self._label(int(index)), float(probabilities[index])) for index in best)
        )

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else str(index)


def softmax(logits: Array, axis: int = -1) -> Array:
    shifted = np.exp(logits - logits.max(axis=axis, keepdims=True))
    result: Array = shifted / shifted.sum(axis=axis, keepdims=True)
    return result


def sigmoid(logits: Array) -> Array:
    """Without overflow on either side: tanh saturates where exp would not."""
    result: Array = 0.5 * (1 + np.tanh(0.5 * logits))
    return result


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda scores: scores,
}
