"""Interpolation over widths, against functions that are known everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.errors import BackendError
from eightfold.runtime.bench.profile.grid import Point, levels, measured_table
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.staircase import width_step
from eightfold.runtime.bench.profile.width_table import WidthTable

CONV = LayerShape(kind="conv", size=(28, 28), kernel=(3, 3), stride=(1, 1), padding=(1, 1))
POOL = LayerShape(kind="max_pool", size=(28, 28), kernel=(2, 2), stride=(2, 2))
grids = st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True).map(sorted)


def stairs(step: int) -> Callable[[Sequence[Point]], list[float]]:
    """A device whose kernels take whole blocks of channels on both sides."""

    def measure(points: Sequence[Point]) -> list[float]:
        return [0.01 + 1e-4 * ceil(i / step) * ceil(o / step) * step for _, i, o in points]

    return measure


@given(inputs=grids, outputs=grids, data=st.data())
def test_points_of_the_grid_are_exact(inputs: list[int], outputs: list[int], data: st.DataObject) -> None:
    times = data.draw(
        st.lists(st.floats(1, 9), min_size=len(inputs) * len(outputs), max_size=len(inputs) * len(outputs))
    )
    points = {(i, o): times.pop() for i in inputs for o in outputs}
    table = WidthTable.of_points(CONV, points)
    assert all(table.at(*pair) == pytest.approx(ms) for pair, ms in points.items())


@given(
    a=st.floats(0.1, 5),
    b=st.floats(0, 1),
    c=st.floats(0, 1),
    d=st.floats(0, 0.1),
    i=st.integers(8, 96),
    o=st.integers(8, 64),
)
def test_bilinear_functions_are_exact_everywhere(a: float, b: float, c: float, d: float, i: int, o: int) -> None:
    def exact(x: float, y: float) -> float:
        return a + b * x + c * y + d * x * y

    grid = {(x, y): exact(x, y) for x in (8, 32, 96) for y in (8, 64)}
    assert WidthTable.of_points(CONV, grid).at(i, o) == pytest.approx(exact(i, o))


@given(inputs=grids, outputs=grids, i=st.integers(1, 40), o=st.integers(1, 40), seed=st.integers(0, 99))
def test_inside_the_grid_a_time_lies_between_its_corners(
    inputs: list[int], outputs: list[int], i: int, o: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    table = WidthTable.of_points(CONV, {(x, y): float(random.uniform(1, 9)) for x in inputs for y in outputs})
    i, o = int(np.clip(i, inputs[0], inputs[-1])), int(np.clip(o, outputs[0], outputs[-1]))
    assert table.ms.min() - 1e-9 <= table.at(i, o) <= table.ms.max() + 1e-9


def test_extrapolation_never_reaches_zero() -> None:
    table = WidthTable.of_points(CONV, {(8, 8): 1.0, (8, 16): 5.0})
    assert table.at(8, 1) > 0


def test_a_hole_in_the_grid_is_named_with_the_remedy() -> None:
    with pytest.raises(BackendError, match=r"has no time at \(16, 8\).*run eightfold profile again"):
        WidthTable.of_points(CONV, {(8, 8): 1.0, (8, 16): 1.0, (16, 16): 1.0})


@pytest.mark.parametrize("step", [8, 16, 32])
def test_a_staircase_is_met_at_every_width(step: int) -> None:
    table = measured_table(CONV, (128, 128), (step, step), {}, stairs(step))
    errors = [
        abs(table.at(i, o) / stairs(step)([(CONV, i, o)])[0] - 1) for i in range(1, 129, 5) for o in range(1, 129, 3)
    ]
    assert max(errors) < 0.02


def test_a_bend_gets_a_line_of_its_own() -> None:
    def bent(points: Sequence[Point]) -> list[float]:
        return [max(1.0, o / 56) for _, _, o in points]

    table = measured_table(POOL, (128, 128), (8, 8), {}, bent)
    assert len(table.outputs) > len(levels(128, 8))
    assert all(table.at(1, o) == pytest.approx(bent([(POOL, 1, o)])[0], rel=0.08) for o in range(8, 129, 8))


def test_known_points_are_not_measured_again() -> None:
    asked: list[Point] = []

    def measure(points: Sequence[Point]) -> list[float]:
        asked.extend(points)
        return stairs(8)(points)

    first = measured_table(CONV, (64, 64), (8, 8), {}, measure)
    known = {(i, o): ms for (_, i, o), ms in zip(asked, stairs(8)(asked), strict=True)}
    asked.clear()
    again = measured_table(CONV, (64, 64), (8, 8), known, measure)
    assert not asked
    assert (again.ms == first.ms).all()


@pytest.mark.parametrize("step", [8, 16, 32])
def test_the_step_of_a_staircase_is_found_through_noise(step: int) -> None:
    widths = range(64, 137, 8)
    random = np.random.default_rng(0)
    times = [(0.2 + ceil(width / step) * step / 64) * random.normal(1, 0.01) for width in widths]
    assert width_step(widths, times, (8, 16, 32)) == step


def test_groups_of_a_convolution_divide_every_width() -> None:
    grouped = CONV.model_copy(update={"groups": 3})
    table = measured_table(grouped, (48, 48), (8, 8), {}, stairs(8))
    assert all(width % 3 == 0 for width in (*table.inputs, *table.outputs))
