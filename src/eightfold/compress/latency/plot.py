"""Writes a latency report as JSON, and its Pareto front as an SVG plot where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path

from eightfold.compress.latency.report import LatencyReport
from eightfold.extras import installed, require
from eightfold.files import write_text

MARKS = {"chosen": "*", "optimal": "o", "uniform": "s", "global": "^", "whole": "D", "fit": "P"}


def save_report(report: LatencyReport, place: Path) -> list[Path]:
    """Write `latency.json` and `latency.svg` into a folder, or `PLACE.latency.*` beside a file; returns the paths."""
    start = place / "latency" if place.is_dir() else place.with_name(f"{place.name}.latency")
    written = [report.save(start.with_name(f"{start.name}.json"))]
    if installed("matplotlib"):
        path = start.with_name(f"{start.name}.svg")
        write_text(path, front_svg(report))
        written.append(path)
    return written


def front_svg(report: LatencyReport) -> str:
    """The plot: importance over latency, predicted and measured, of the front, the plan and the naive plans."""
    import io

    matplotlib = require("matplotlib", "plot a Pareto front")
    figures = require("matplotlib.figure", "plot a Pareto front")
    figure = figures.Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    front = sorted((p.predicted_ms, p.importance) for p in report.points if p.kind in ("optimal", "chosen"))
    axes.plot(*zip(*front, strict=True), "-", color="0.6", zorder=1)
    for kind, mark in MARKS.items():
        points = [each for each in report.points if each.kind == kind]
        if points:
            axes.scatter([p.predicted_ms for p in points], [p.importance for p in points], marker=mark, label=kind)
        timed = [(p.measured_ms, p.importance) for p in points if p.measured_ms is not None]
        if timed:
            axes.scatter(*zip(*timed, strict=True), marker=mark, facecolors="none", edgecolors="black")
    axes.axvline(report.budget_ms, color="0.4", linestyle=":", label="budget")
    axes.set_xlabel("latency, ms (filled: predicted; outlined: measured)")
    axes.set_ylabel("importance that stays")
    axes.legend()
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text that can be searched
        figure.savefig(stream, format="svg", bbox_inches="tight")
    return stream.getvalue()
