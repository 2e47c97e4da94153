"""Reports the search for layers to keep in float: a table, and a plot of accuracy against speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.values import Frozen

SCORE_COLOR, SPEED_COLOR = "tab:blue", "tab:red"


class SearchStep(Frozen):
    """INT8 with some layers in float.

    Args:
        kept_float: labels of those layers.
        score: of this file.
        speedup: over FP32 on this machine; None where it cannot run the target.
        latency_ms: median of one call; None likewise.
    """

    kept_float: tuple[str, ...]
    score: float
    speedup: float | None
    latency_ms: float | None = None


class SearchReport(Frozen):
    """Result of the search. The last step is the one that was written.

    Args:
        score_name, unit: what is measured.
        float_score: of the float graph; of a signal to noise, which that has none of, what was to be reached.
        max_drop: what was allowed.
        damage: layer -> how much it costs, worst first.
        steps: from all layers in INT8 on.
        met: whether the last step is within `max_drop`.
        is_goal: whether `float_score` was to be reached.
    """

    score_name: str
    unit: str
    float_score: float
    max_drop: float
    damage: dict[str, float]
    steps: tuple[SearchStep, ...]
    met: bool
    is_goal: bool = False

    def describe(self) -> str:
        """Table for a person: one line a step."""
        score, allowed = f"{self.float_score:.2f} {self.unit}", f"; allowed drop {self.max_drop:g}"
        of, less = ("to reach", " short of") if self.is_goal else ("of FP32", "     drop")
        lines = [f"{self.score_name} {of}: {score}" + ("" if self.is_goal else allowed)]
        lines.append(f"in float  {self.score_name:>8} {less}        ms  times FP32  last layer given back")
        for step in self.steps:
            drop, speed = self.float_score - step.score, f"{step.speedup:.2f}" if step.speedup else "-"
            last = step.kept_float[-1] if step.kept_float else "(all INT8)"
            ms = f"{step.latency_ms:.2f}" if step.latency_ms else "-"
            lines.append(f"{len(step.kept_float):8d}  {step.score:8.2f}  {drop:8.2f}  {ms:>8}  {speed:>10}  {last}")
        if (self.steps[-1].speedup or 1.0) < 1:
            lines.append("WARNING: INT8 is SLOWER than FP32 on this machine; keep FP32")
        if not self.met:
            lines.append("WARNING: " + ("it is not reached" if self.is_goal else "the drop is larger than allowed"))
        return "\n".join(lines)

    def plot(self, path: PathLike) -> Path:
        """Score and speed over the number of layers in float, as an SVG or PNG."""
        pyplot = require("matplotlib.pyplot", "draw plots")
        figure, axes = pyplot.subplots(figsize=(7, 4.2))
        counts = [len(step.kept_float) for step in self.steps]
        axes.plot(counts, [step.score for step in self.steps], "o-", color=SCORE_COLOR, label=self.score_name)
        lowest = self.float_score - self.max_drop
        axes.axhline(lowest, color=SCORE_COLOR, linestyle=":", label=f"lowest allowed: {lowest:.4g} {self.unit}")
        axes.set_xlabel("layers given back to float")
        axes.set_ylabel(f"{self.score_name} [{self.unit}]", color=SCORE_COLOR)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if all(step.speedup for step in self.steps):
            self._plot_speed(axes.twinx(), counts)
        figure.legend(loc="upper center", ncols=3, frameon=False)
        figure.savefig(str(path), bbox_inches="tight")
        pyplot.close(figure)
        return Path(path)

    def _plot_speed(self, axes: Any, counts: list[int]) -> None:
        axes.plot(counts, [step.speedup for step in self.steps], "s--", color=SPEED_COLOR, label="speed")
        axes.set_ylabel("times as fast as FP32", color=SPEED_COLOR)
        if min(step.speedup or 0 for step in self.steps) < 1:
            axes.axhline(1, color=SPEED_COLOR, linestyle=":")
