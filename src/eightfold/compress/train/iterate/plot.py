"""Plot of an iterative pruning: metric before and after training, MACs and measured latency over parameters left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eightfold.compress.train.iterate.iterate import StepRow
from eightfold.extras import require
from eightfold.files import atomic_path


def plot_steps(rows: Sequence[StepRow], output: Path, *, metric: str = "metric") -> Path:
    """`rows`: step 0 is the original. `output`: .svg or .png."""
    figure = require("matplotlib.figure", "draw plots").Figure(figsize=(7, 5), layout="constrained")
    left = [100 * row.parameters / rows[0].parameters for row in rows]
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(left, [row.recovered for row in rows], marker="o", markersize=3, label="after training")
    above.plot(left, [row.pruned for row in rows], marker="x", markersize=4, linestyle="--", label="pruned")
    above.set(ylabel=metric)
    above.legend(frameon=False)
    below.plot(left, [100 * row.macs / rows[0].macs for row in rows], marker="o", markersize=3, label="MACs")
    times = [(x, row.latency_ms) for x, row in zip(left, rows, strict=True) if row.latency_ms is not None]
    if times and times[0][0] == left[0]:
        below.plot(
            [x for x, _ in times],
            [100 * ms / times[0][1] for _, ms in times],
            marker="s",
            markersize=3,
            label="latency",
        )
    below.set(xlabel="parameters left (%)", ylabel="% of the original")
    below.invert_xaxis()
    below.legend(frameon=False)
    with atomic_path(output) as temporary:
        figure.savefig(temporary)
    return output
