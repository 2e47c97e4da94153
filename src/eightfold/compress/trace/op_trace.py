"""The trail of a trace: what every operator was given and made, and which dimensions of its results hold channels.

From it follows what each operator must show once channels are gone. A number that the model's code fixes (`x[:, :4]`,
`view(n, 8, -1)`) shows as a result of another width, and a factor that follows a width (`q / sqrt(q.shape[-1])`) as
another factor, even where nothing raises. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.int64]


class Axis(NamedTuple):
    """One dimension of one result that holds channels."""

    result: int  # number of the tensor among the operator's results
    dim: int
    vector: int  # number of the places of its channels in `OpTrace.places`


class TracedOp(NamedTuple):
    """One operator as the trace saw it."""

    operator: str
    dims: tuple[int, ...]  # number of dimensions of each result
    factors: tuple[float, ...]  # its plain floating-point arguments
    axes: tuple[Axis, ...]


@dataclass(frozen=True, eq=False)
class OpTrace:
    """Every operator in execution order.

    `places` are int64 [n, 2] each: group and channel of every index, -1 where it is no channel."""

    steps: tuple[TracedOp, ...] = ()
    places: tuple[Vector, ...] = ()

    def widths(self, stays: Sequence[npt.NDArray[np.bool_]]) -> list[int]:
        """For each of `places`, how many indices stay.

        Args:
            stays: for every group of the graph, which of its channels stay.
        """
        starts = np.cumsum([0, *(len(mask) for mask in stays)])
        flat = np.concatenate([*stays, np.ones(1, dtype=np.bool_)])
        # The last entry of `flat` serves what is no channel: group -1, channel -1.
        return [int(flat[np.where(p[:, 0] < 0, -1, starts[p[:, 0]] + p[:, 1])].sum()) for p in self.places]

    def groups_of(self, step: TracedOp) -> set[int]:
        """Numbers of the groups whose channels the results of `step` hold."""
        numbers = [np.unique(self.places[axis.vector][:, 0]) for axis in step.axes]
        return {int(number) for found in numbers for number in found if number >= 0}


@dataclass
class OpTraceNotes:
    """Records that a trace collects, still in labels."""

    steps: list[TracedOp] = field(default_factory=list)
    vectors: list[Vector] = field(default_factory=list)
    _number: dict[int, int] = field(default_factory=dict)

    def add(
        self, operator: str, factors: tuple[float, ...], results: Iterable[tuple[int, Mapping[int, Vector]]]
    ) -> None:
        """Note one operator, and the number of dimensions and the labels of each of its results."""
        dims, axes = [], []
        for number, (count, labels) in enumerate(results):
            dims.append(count)
            axes += [Axis(number, dim, self._of(vector)) for dim, vector in labels.items()]
        self.steps.append(TracedOp(operator, tuple(dims), factors, tuple(axes)))

    def _of(self, vector: Vector) -> int:
        number = self._number.setdefault(id(vector), len(self.vectors))
        if number == len(self.vectors):
            self.vectors.append(vector)  # holding it keeps its id from being reused
        return number

    def solved(self, place: npt.NDArray[np.int64]) -> OpTrace:
        """The trace, given the group and channel of each label in `place` [labels + 1, 2]."""
        return OpTrace(tuple(self.steps), tuple(place[vector] for vector in self.vectors))
