"""Histograms of channel sizes over a sparse training: a table, a JSON file and a plot.

Each snapshot counts channels by the logarithm of their size relative to the largest of their layer. Sparse training
has worked where a second hill, far to the left, has grown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from eightfold.extras import require
from eightfold.files import atomic_path, write_text

EDGES = np.linspace(-6, 0, 25)  # of log10 of the relative size; what is smaller counts in the first bin
DEAD = 0.01  # of the layer's largest: channels below it are as good as gone


def relative_sizes(magnitudes: Mapping[str, Tensor]) -> np.ndarray:
    """Size of each channel relative to the largest of its layer, float64; 0 in layers that are all zero."""
    rows = [size.double().cpu().numpy() for size in magnitudes.values()]
    return np.concatenate([row / max(float(row.max()), 1e-30) for row in rows]) if rows else np.zeros(0)


def dead_share(magnitudes: Mapping[str, Tensor]) -> float:
    """Share of channels below 1% of the largest of their layer."""
    return float((relative_sizes(magnitudes) < DEAD).mean())


@dataclass
class ScaleHistory:
    """Snapshots in order: optimizer step, share of dead channels, and counts by bin of `EDGES`."""

    steps: list[int] = field(default_factory=list)
    dead: list[float] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)

    def add(self, step: int, magnitudes: Mapping[str, Tensor]) -> None:
        """Append a snapshot."""
        sizes = relative_sizes(magnitudes)
        logarithms = np.log10(np.maximum(sizes, 10.0 ** EDGES[0]))
        self.steps.append(step)
        self.dead.append(float((sizes < DEAD).mean()))
        self.counts.append(np.histogram(logarithms, EDGES)[0].tolist())

    def save(self, path: Path) -> None:
        """Write all snapshots as JSON."""
        content = {"log10_edges": EDGES.tolist(), "steps": self.steps, "dead": self.dead, "counts": self.counts}
        write_text(path, json.dumps(content) + "\n")

    def describe(self) -> str:
        """One line: the share of dead channels at the start and at the end."""
        if not self.steps:
            return "no snapshot"
        return f"channels below 1% of their layer's largest: {self.dead[0]:.1%} at first, {self.dead[-1]:.1%} at last"

    def plot(self, output: Path) -> Path:
        """Draw the histograms as a map over steps, and the share of dead channels below. `output`: .svg or .png."""
        figure = require("matplotlib.figure", "draw plots").Figure(figsize=(7, 5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        table = np.array(self.counts, float).T
        middles = (EDGES[1:] + EDGES[:-1]) / 2
        above.pcolormesh(self.steps, middles, table / max(table.sum(0).max(initial=1), 1), shading="nearest")
        above.set(ylabel="log10 of |scale| / layer's largest")
        below.plot(self.steps, self.dead, marker="o", markersize=3)
        below.set(xlabel="step", ylabel="share below 1%", ylim=(0, 1))
        with atomic_path(output) as temporary:
            figure.savefig(temporary)
        return output
