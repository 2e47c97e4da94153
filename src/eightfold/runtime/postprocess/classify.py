"""Classification: the likeliest classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.runtime.bundle.manifest import TaskKind
from eightfold.runtime.postprocess.arithmetic import sigmoid, softmax
from eightfold.runtime.postprocess.decoder import Decoder, the_output
from eightfold.runtime.postprocess.results import Classification, ClassScore, label_of


class TopK(Decoder):
    """`classify`: the k likeliest classes of one output (B, C) or (B, C, 1, 1)."""

    kind: ClassVar[TaskKind] = "classify"
    k: int = Field(default=5, ge=1)
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> list[Classification]:
        rows = the_output(outputs)[: len(placements)].reshape(len(placements), -1)
        return [self._answer(self._activate(row)) for row in rows]

    def _activate(self, row: Array) -> Array:
        if self.activation == "none":
            return row
        return softmax(row) if self.activation == "softmax" else sigmoid(row)

    def _answer(self, probabilities: Array) -> Classification:
        # A stable sort ranks equal scores by index, in every runtime.
        best = np.argsort(-probabilities, kind="stable")[: self.k].tolist()
        return Classification(
            tuple(ClassScore(index, label_of(self.labels, index), float(probabilities[index])) for index in best)
        )
