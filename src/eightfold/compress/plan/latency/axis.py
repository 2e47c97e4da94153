"""Widths that a side of a layer may have, and the points of a grid that a cheapest mean can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

FLAT = 0.002  # of a price: grid points that lie so near to a straight line are left out


@dataclass(frozen=True)
class WidthAxis:
    """Widths that a layer's side may have.

    Attributes:
        keeps: the binary of each; None where the width is fixed, or a grid.
        sum_of: of a grid: binary -> what it adds to the width, beside `fixed`.
    """

    widths: tuple[float, ...]
    keeps: list[int] | None
    sum_of: Mapping[int, float] = field(default_factory=dict)
    fixed: float = 0.0

    def same(self, other: WidthAxis) -> bool:
        """True if both follow the same group, so that their widths move together."""
        return self.keeps is not None and self.keeps == other.keeps


def needed_points(ms: np.ndarray, points: list[tuple[int, ...]], inputs: WidthAxis, outputs: WidthAxis) -> list[int]:
    """Numbers of the points that a cheapest mean can use: along a grid, those on the lower convex hull of a price."""
    needed = set()
    for prices in ms.reshape(len(ms), len(inputs.widths), len(outputs.widths)):
        kept = np.ones(prices.shape, dtype=bool)
        if inputs.keeps is None:
            for o in range(len(outputs.widths)):
                kept[:, o] = _on_hull(inputs.widths, prices[:, o])
        if outputs.keeps is None:
            for i in range(len(inputs.widths)):
                kept[i] &= _on_hull(outputs.widths, prices[i])
        needed |= set(np.flatnonzero(kept.ravel()).tolist())
    return [n for n in range(len(points)) if n in needed]


def _on_hull(widths: Sequence[float], ms: np.ndarray) -> np.ndarray:
    return np.isin(np.arange(len(widths)), lower_hull(widths, ms.tolist()))


def lower_hull(widths: Sequence[float], ms: Sequence[float]) -> list[int]:
    """Numbers of the points on the lower convex hull, give or take `FLAT` of a price.

    >>> lower_hull([0, 1, 2, 3], [0.0, 2.0, 2.0, 3.0])
    [0, 3]
    """
    hull: list[int] = []
    for n in range(len(widths)):
        while len(hull) > 1 and _above(widths, ms, hull[-2], n):
            hull.pop()
        hull.append(n)
    return hull


def _above(widths: Sequence[float], ms: Sequence[float], left: int, right: int) -> bool:
    """True if no point between two others lies below the line that joins them."""
    between = slice(left + 1, right)
    line = np.interp(widths[between], [widths[left], widths[right]], [ms[left], ms[right]])
    return bool(np.all(np.asarray(ms[between]) * (1 + FLAT) >= line))
