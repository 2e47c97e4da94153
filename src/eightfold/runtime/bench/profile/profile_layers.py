"""Profiles the layers of a network: tables for every shape, from the cache where it has them, measured where not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eightfold.progress import track
from eightfold.runtime.bench.profile.grid import Point, measured_table
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.settings import ProfileSettings
from eightfold.runtime.bench.profile.staircase import width_step
from eightfold.runtime.bench.profile.store import ProfileStore
from eightfold.runtime.bench.profile.time_layers import time_layers
from eightfold.runtime.bench.profile.width_table import Widths, WidthTable
from eightfold.text_table import text_table

# Points of a profile -> milliseconds of each, and of the reference layer in the same run.
Timer = Callable[[Sequence[Point], ProfileSettings], tuple[Sequence[float], float]]
LEAST_MULTIPLE = 8  # what the project promises, whatever a device would take
STEP_WIDTHS = tuple(range(64, 64 + 9 * 8, 8))
STEP_CANDIDATES = (8, 16, 32)
# Dense layers show the step best: all their time goes into blocks of channels.
STEP_SHAPE = LayerShape(kind="conv", size=(14, 14), kernel=(3, 3), stride=(1, 1), padding=(1, 1))
DRIFT = 0.06  # of the reference layer's time: less is noise, more is a clock that moved
STEP_REPEATS = 3  # of which the least counts: a step that noise suggests costs every plan


@dataclass(frozen=True)
class LayerProfile:
    """Tables of layers under one setting.

    Attributes:
        steps: blocks of input and output channels that the device works in.
        measured: points that were measured now; the others came from the cache.
    """

    settings: ProfileSettings
    steps: Widths
    tables: Mapping[LayerShape, WidthTable] = field(default_factory=dict)
    measured: int = 0

    @property
    def multiple(self) -> int:
        """Channel multiple for pruning: the device's step, never less than 8."""
        return max(LEAST_MULTIPLE, *self.steps)

    def at(self, shape: LayerShape, inputs: float, outputs: float) -> float:
        """Milliseconds of a layer at these widths."""
        return self.tables[shape].at(inputs, outputs)

    def describe(self, counts: Mapping[LayerShape, int] | None = None) -> str:
        """A table of the shapes: time at full width, at half, and how much half the width saves."""
        rows = [_row(table, (counts or {}).get(shape, 1)) for shape, table in self.tables.items()]
        head = ("layer", "count", "in", "out", "ms", "ms at half", "ratio")
        lines = text_table([head, *sorted(rows, key=lambda row: -float(row[4]) * int(row[1]))], left={0})
        step = f"width step: {self.steps[1]} (inputs {self.steps[0]}); channel multiple: {self.multiple}"
        return "\n".join([self.settings.describe(), step, *lines])


def profile_layers(
    widest: Mapping[LayerShape, Widths], store: ProfileStore, *, timer: Timer = time_layers
) -> LayerProfile:
    """Tables for every shape up to its widest inputs and outputs.

    Args:
        widest: of each shape, the largest widths that are asked for.
        store: known points; measured ones are added as they come, so that an interrupted profile resumes.
        timer: how points are measured.
    """
    measured = 0

    def measure(points: Sequence[Point]) -> list[float]:
        nonlocal measured
        known = [store.points.get(shape, {}).get((i, o)) for shape, i, o in points]
        missing = [point for point, ms in zip(points, known, strict=True) if ms is None]
        if missing:
            times, reference = timer(missing, store.settings)
            if store.reference_ms is None:
                store.set_reference(reference)
            factor = _speed_now(store.reference_ms, reference)
            store.add((shape, (i, o), ms * factor) for (shape, i, o), ms in zip(missing, times, strict=True))
            measured += len(missing)
        return [store.points[shape][i, o] for shape, i, o in points]

    steps = device_steps(lambda points: _known_or_least(points, store, timer))
    tables = {}
    for shape, widths in track(list(widest.items()), f"profiling layers on {store.settings.backend}"):
        tables[shape] = measured_table(shape, widths, steps, store.points.get(shape, {}), measure)
    return LayerProfile(store.settings, steps, tables, measured)


def device_steps(measure: Callable[[Sequence[Point]], Sequence[float]]) -> Widths:
    """Blocks of input and of output channels, found on a dense layer."""
    by_inputs = measure([(STEP_SHAPE, width, STEP_WIDTHS[0]) for width in STEP_WIDTHS])
    by_outputs = measure([(STEP_SHAPE, STEP_WIDTHS[0], width) for width in STEP_WIDTHS])
    return (
        width_step(STEP_WIDTHS, by_inputs, STEP_CANDIDATES),
        width_step(STEP_WIDTHS, by_outputs, STEP_CANDIDATES),
    )


def _speed_now(first_ms: float | None, now_ms: float) -> float:
    """Time of the reference layer when the file was begun relative to now; 1 where they differ by noise alone."""
    factor = first_ms / now_ms if first_ms and now_ms else 1.0
    return factor if abs(factor - 1) > DRIFT else 1.0


def _known_or_least(points: Sequence[Point], store: ProfileStore, timer: Timer) -> list[float]:
    """From the store, or the least of several times of each point relative to the reference beside it."""
    known = [store.points.get(shape, {}).get((i, o)) for shape, i, o in points]
    if any(ms is None for ms in known):
        runs = [timer(points, store.settings) for _ in range(STEP_REPEATS)]
        if store.reference_ms is None:
            store.set_reference(min(reference for _, reference in runs))
        times = [min(each) for each in zip(*(times for times, _ in runs), strict=True)]
        store.add((shape, (i, o), ms) for (shape, i, o), ms in zip(points, times, strict=True))
        return times
    return [ms for ms in known if ms is not None]


def _row(table: WidthTable, count: int) -> tuple[str, ...]:
    inputs, outputs = table.inputs[-1], table.outputs[-1]
    whole, half = table.at(inputs, outputs), table.at(inputs / 2, outputs / 2)
    shown = str(inputs) if table.shape.two_sided else "-"
    return table.shape.key, str(count), shown, str(outputs), f"{whole:.4f}", f"{half:.4f}", f"{half / whole:.2f}"
