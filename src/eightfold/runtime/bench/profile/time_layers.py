"""Times micro-graphs on a back end: candidates take turns, as in `bench`, and the back end's own clock tells how long
the layer took, without the conversions of layout at the ends of the graph."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eightfold.errors import BackendError
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import NodeTime, SessionOptions, Slot
from eightfold.runtime.bench.interleave import Clock, Schedule, alternate
from eightfold.runtime.bench.profile.grid import Point
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.micro_graph import BEFORE, micro_graph
from eightfold.runtime.bench.profile.settings import FLOAT_KINDS, ProfileSettings
from eightfold.scratch import scratch_folder

SCHEDULE = Schedule(seconds=0.024, rounds=4, block_s=0.006, warmup_s=0.01)
SHORT, WINDOWS = Schedule(seconds=0.004, rounds=2, block_s=0.002, warmup_s=0.004), 3
AT_ONCE = 24  # sessions open at a time: each has a pool of threads
# How fast the machine is at the moment: a layer that every profile times again beside its own.
REFERENCE = LayerShape(kind="conv", size=(14, 14), kernel=(3, 3), stride=(1, 1), padding=(1, 1), activation="relu")
REFERENCE_WIDTH = 64  # short, so that other processes seldom interrupt it
# Conversions of layout where a graph begins and ends; inside a network there are none.
_BOUNDARY = frozenset({"ReorderInput", "ReorderOutput", "Transpose"})
_REORDER = re.compile(rf"_a[bcde]+_a[bcde]+_|^input\d+|sink_port_\d+$|{BEFORE}_")
LEAST_MS = 1e-4


def time_layers(points: Sequence[Point], settings: ProfileSettings) -> tuple[list[float], float]:
    """Milliseconds of each point, and of the reference layer beside them."""
    found: list[float] = []
    references: list[float] = []
    for first in range(0, len(points), AT_ONCE):
        part = [*points[first : first + AT_ONCE], (REFERENCE, REFERENCE_WIDTH, REFERENCE_WIDTH)]
        times = _timed(part, settings)
        found += times[:-1]
        references.append(times[-1])
    return found, float(np.median(references)) if references else 0.0


def _timed(points: Sequence[Point], settings: ProfileSettings) -> list[float]:
    if settings.backend == "onnxruntime":
        return [window.layer_ms for window in _window(points, settings, SCHEDULE)]
    # Others tell the mean over all runs of a session, which one disturbance spoils: the shortest of several sessions.
    windows = [_window(points, settings, SHORT) for _ in range(WINDOWS)]
    return [min(each, key=lambda window: window.total_ms).layer_ms for each in zip(*windows, strict=True)]


class _Window(NamedTuple):
    """One point in one session: the layer's own time, and that of all nodes."""

    layer_ms: float
    total_ms: float


def _window(points: Sequence[Point], settings: ProfileSettings, schedule: Schedule) -> list[_Window]:
    clock = clock_for(settings.threads)
    with scratch_folder() as folder:
        slots = [_slot(point, settings, folder / f"{number}.onnx") for number, point in enumerate(points)]
        samples = alternate({str(number): slot.run for number, slot in enumerate(slots)}, schedule, clock=clock)
        runs = [float(np.nanquantile(samples[str(number)].uninterrupted_s, 0.25)) * 1e3 for number in range(len(slots))]
        return [_own(slot.node_times(), run) for slot, run in zip(slots, runs, strict=True)]


def _own(nodes: Mapping[str, NodeTime], run_ms: float) -> _Window:
    """All nodes together take no longer than a whole run, unless something interrupted them in most runs."""
    layer, total = layer_ms(nodes), sum(node.ms for node in nodes.values())
    return _Window(max(layer * min(1.0, run_ms / max(total, LEAST_MS)), LEAST_MS), total)


def clock_for(threads: int) -> Clock:
    """The processor time of this process where one thread does all the work, so that other processes do not count; else
    the wall clock."""
    return time.process_time if threads == 1 else time.perf_counter


def _slot(point: Point, settings: ProfileSettings, path: Path) -> Slot:
    shape, inputs, outputs = point
    float_kinds = FLOAT_KINDS.get(settings.backend, frozenset())
    path.write_bytes(micro_graph(shape, inputs, outputs, int8=settings.precision == "int8", float_kinds=float_kinds))
    try:
        session = open_session(path, settings.backend, SessionOptions(threads=settings.threads, node_times=True))
    except Exception as error:
        raise BackendError(
            f"{settings.backend} cannot run a layer {shape.key} at {inputs} to {outputs}: {error}"
        ) from error
    slot = session.new_slot()
    random = np.random.default_rng(0)
    for buffer in slot.inputs.values():
        high = 256 if buffer.dtype == np.uint8 else 2
        np.copyto(buffer, random.integers(0, high, buffer.shape).astype(buffer.dtype))
        if buffer.dtype == np.float32:
            np.copyto(buffer, random.standard_normal(buffer.shape).astype(np.float32))
    return slot


def layer_ms(nodes: Mapping[str, NodeTime]) -> float:
    """Sum over the nodes of a compiled micro-graph that belong to the layer."""
    return sum(
        node.ms
        for name, node in nodes.items()
        if node.operator not in _BOUNDARY and not name.startswith(BEFORE) and not _REORDER.search(name)
    )
