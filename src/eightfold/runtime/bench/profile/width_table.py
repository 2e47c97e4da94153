"""Latency over widths: points on a grid, and what lies between them.

Back ends process channels in blocks, so that latency is a staircase over the width. The table holds whole numbers of
blocks; a width is first rounded up to its block, then interpolated linearly between the grid's points.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from eightfold.errors import BackendError
from eightfold.runtime.bench.profile.layer_shape import LayerShape

Widths = tuple[int, int]
LEAST_SHARE = 0.1  # of the smallest time on the grid: extrapolation never goes below it


@dataclass(frozen=True)
class WidthTable:
    """Milliseconds of one layer shape on a rectangular grid of widths.

    Attributes:
        inputs, outputs: ascending widths of the grid; `inputs` is (1,) where the kind has one width.
        ms: [inputs, outputs], positive.
        steps: channels of one block of inputs and of outputs: widths are rounded up to it.
    """

    shape: LayerShape
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: npt.NDArray[np.float64]
    steps: Widths = (1, 1)

    @staticmethod
    def of_points(shape: LayerShape, points: Mapping[Widths, float], steps: Widths = (1, 1)) -> WidthTable:
        """The table of measured points; raises BackendError where the grid has a hole."""
        inputs, outputs = (tuple(sorted({pair[axis] for pair in points})) for axis in (0, 1))
        holes = [(i, o) for i in inputs for o in outputs if (i, o) not in points]
        if not points or holes:
            raise BackendError(
                f"the profile of {shape.key} has no time at {holes[0] if holes else 'any width'}",
                allowed="a whole grid of widths",
                remedy="run eightfold profile again: it resumes",
            )
        ms = np.array([[points[i, o] for o in outputs] for i in inputs], dtype=np.float64)
        return WidthTable(shape, inputs, outputs, ms, steps)

    def at(self, inputs: float, outputs: float) -> float:
        """Milliseconds at these widths; of a kind with one width, `inputs` is not looked at."""
        row = _place(self.inputs, _up(inputs, self.steps[0]) if self.shape.two_sided else self.inputs[0])
        column = _place(self.outputs, _up(outputs, self.steps[1]))
        found = sum(a * b * self.ms[i, j] for i, a in row for j, b in column)
        return float(max(found, LEAST_SHARE * self.ms.min()))

    def grid(self, inputs: Sequence[float], outputs: Sequence[float]) -> npt.NDArray[np.float64]:
        """`at` for every pair: [inputs, outputs]."""
        return np.array([[self.at(i, o) for o in outputs] for i in inputs])


def _up(width: float, step: int) -> float:
    return ceil(width / step) * step


def _place(grid: Sequence[int], width: float) -> Iterable[tuple[int, float]]:
    """Indices and weights of linear interpolation; beyond the ends, the outermost line goes on."""
    if len(grid) == 1:
        return [(0, 1.0)]
    left = min(max(bisect_right(grid, width) - 1, 0), len(grid) - 2)
    share = (width - grid[left]) / (grid[left + 1] - grid[left])
    return [(left, 1 - share), (left + 1, share)]
