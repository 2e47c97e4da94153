"""Chooses the widths at which a layer is measured: whole blocks of the device, more of them where the curve bends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil

from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.width_table import Widths, WidthTable

SHARES = (0.25, 0.5, 0.75)
BENDS = 0.06  # a point that differs more from the line between its neighbours gets a line of the grid of its own
Point = tuple[LayerShape, int, int]
Measure = Callable[[Sequence[Point]], Sequence[float]]


def levels(width: int, step: int) -> tuple[int, ...]:
    """Ascending widths of an axis: one block, a quarter, a half, three quarters, and all of `width`, in whole blocks.

    >>> levels(96, 8)
    (8, 24, 48, 72, 96)
    """
    blocks = max(1, ceil(width / step))
    return tuple(block * step for block in sorted({1, blocks, *(max(1, round(blocks * share)) for share in SHARES)}))


def measured_table(
    shape: LayerShape, widest: Widths, steps: Widths, known: Mapping[Widths, float], measure: Measure
) -> WidthTable:
    """The table up to `widest`: a first grid, then one more line through each bend.

    Args:
        known: points that are measured already.
        measure: gives milliseconds for points.
    """
    step_in, step_out = (_fitting(step, shape) for step in steps)
    inputs = levels(widest[0], step_in) if shape.two_sided else (1,)
    outputs = levels(widest[1], step_out)
    points = dict(known)

    def fill(wanted: Iterable[Widths]) -> None:
        missing = [pair for pair in dict.fromkeys(wanted) if pair not in points]
        points.update(zip(missing, measure([(shape, *pair) for pair in missing]) if missing else (), strict=True))

    def table() -> WidthTable:
        whole = {(i, o): points[i, o] for i in inputs for o in outputs}
        return WidthTable.of_points(shape, whole, (step_in, step_out))

    fill((i, o) for i in inputs for o in outputs)
    first = table()
    more_in = _between(inputs, step_in) if shape.two_sided else ()
    more_out = _between(outputs, step_out)
    fill([*((i, outputs[-1]) for i in more_in), *((inputs[-1], o) for o in more_out)])
    bends_in = [i for i in more_in if _bends(points[i, outputs[-1]], first.at(i, outputs[-1]))]
    bends_out = [o for o in more_out if _bends(points[inputs[-1], o], first.at(inputs[-1], o))]
    inputs, outputs = tuple(sorted({*inputs, *bends_in})), tuple(sorted({*outputs, *bends_out}))
    fill((i, o) for i in inputs for o in outputs)
    return table()


def _fitting(step: int, shape: LayerShape) -> int:
    """A step that every convolution group can hold."""
    return step if step % shape.groups == 0 else step * shape.groups


def _between(axis: Sequence[int], step: int) -> tuple[int, ...]:
    """Whole blocks in the middle of each stretch of the axis that has any."""
    blocks = [width // step for width in axis]
    middles = [(low + high) // 2 for low, high in itertools.pairwise(blocks) if high - low > 1]
    return tuple(block * step for block in middles)


def _bends(measured: float, line: float) -> bool:
    return abs(measured - line) > BENDS * line
