"""The report's plots, as SVG to be put into HTML. The only module that draws with matplotlib.

Colours are drawn as placeholders and replaced by CSS variables, so that one drawing serves light, dark and paper;
text stays text in the page's own font. The same values give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eightfold.extras import require
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.report.report_content import RecoveryCurves, WidthChange
from eightfold.runtime.report.report_format import is_percentage, metric_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 8
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GLYPHS = ("\u25cf", "\u25a0", "\u25b2", "\u25c6", "\u25bc", "\u271a", "\u2716", "\u2605")
WIDTH_IN, HEIGHT_IN = 6.2, 3.7

# Placeholder colours that no plot would otherwise use -> CSS custom properties of the page.
INK, GRID, SURFACE = "#010203", "#010204", "#010205"
COLORS = tuple(f"#0102{0x10 + index:02x}" for index in range(SERIES))
CSS = {INK: "--muted", GRID: "--line", SURFACE: "--card"} | {
    color: f"--series-{index}" for index, color in enumerate(COLORS)
}
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a candidate's name may hold dollar signs
    "font.size": 11.0,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.5,
}


def series_of(table: LatencyTable) -> dict[str, int]:
    """Candidate -> number of its colour and marker; the baseline is always number 0."""
    names = list(dict.fromkeys(row.name for row in table.rows))
    names.sort(key=lambda name: name != table.baseline)
    return {name: min(index, SERIES - 1) for index, name in enumerate(names)}


def latency_plot(table: LatencyTable) -> str:
    """Median latency by batch on logarithmic axes; bars reach from p50 to p90; empty without medians."""
    if all(row.timing.p50_ms is None for row in table.rows):
        return ""

    def draw(axes: Axes) -> None:
        for name, series in series_of(table).items():
            rows = [row for row in _rows(table, name) if row.timing.p50_ms is not None]
            middle = [row.timing.p50_ms or 0.0 for row in rows]
            upper = [(row.timing.p90_ms or p50) - p50 for row, p50 in zip(rows, middle, strict=True)]
            axes.errorbar(
                [row.batch for row in rows],
                middle,
                yerr=[[0.0] * len(rows), upper],
                color=COLORS[series],
                marker=MARKERS[series],
                capsize=3,
                elinewidth=1.4,
                label=name,
            )
        _batch_axis(axes, _batches(table))
        _log_axis(axes)
        axes.set_ylabel("ms per call, p50 to p90")

    return _svg("latency", "Latency by batch size for each candidate", draw)


def speedup_plot(table: LatencyTable) -> str:
    """Speed-up over the baseline, by batch, with 95% intervals; empty if nothing was compared."""
    names = [name for name in series_of(table) if any(row.speedup for row in _rows(table, name))]
    names = [name for name in names if name != table.baseline]
    if not names:
        return ""

    def draw(axes: Axes) -> None:
        batches = _batches(table)
        width = 0.8 / len(names)
        for place, name in enumerate(names):
            compared = [(row.batch, row.speedup) for row in _rows(table, name) if row.speedup]
            values = [gain.value for _, gain in compared]
            axes.bar(
                [batches.index(batch) + (place - (len(names) - 1) / 2) * width for batch, _ in compared],
                values,
                width * 0.92,
                yerr=[
                    [gain.value - gain.low for _, gain in compared],
                    [gain.high - gain.value for _, gain in compared],
                ],
                color=COLORS[series_of(table)[name]],
                error_kw={"ecolor": INK, "elinewidth": 1.4, "capsize": 2.5},
            )
        axes.axhline(1.0, color=COLORS[0], linestyle="--", linewidth=1.4)
        axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("batch size")
        axes.set_ylabel(f"times as fast as {table.baseline or 'the baseline'}")

    return _svg("speedup", "Speed-up against the baseline by batch size", draw)


def accuracy_plot(table: LatencyTable) -> str:
    """The metric of each candidate against its median latency at the smallest batch; empty without metrics."""
    batch = min(_batches(table), default=1)
    rows = [row for row in table.rows if row.batch == batch and row.metrics and row.timing.p50_ms]
    if not rows:
        return ""
    series, name = series_of(table), rows[0].metrics[0].name
    rows = [row for row in rows if row.metrics[0].name == name]
    scale, label = (100.0, f"{metric_label(name)} in %") if is_percentage(name) else (1.0, name)

    def draw(axes: Axes) -> None:
        for row in rows:
            axes.plot(
                [row.timing.p50_ms or 0.0],
                [scale * row.metrics[0].value],
                color=COLORS[series[row.name]],
                marker=MARKERS[series[row.name]],
                markersize=10,
                linestyle="none",
            )
        axes.margins(0.12, 0.25)
        axes.set_xlim(left=0.0)
        low, high = _honest_limits([scale * row.metrics[0].value for row in rows])
        axes.set_ylim(low, min(high, 100.5) if is_percentage(name) else high)
        axes.set_xlabel(f"ms per call at batch {batch} (p50)")
        axes.set_ylabel(label)

    return _svg("accuracy", f"{metric_label(name)} against latency at batch {batch}", draw)


def widths_plot(widths: Sequence[WidthChange]) -> str:
    """Output channels of every layer, in order: one area before, one after; empty without layers."""
    if not widths:
        return ""

    def draw(axes: Axes) -> None:
        edges = [index - 0.5 for index in range(len(widths) + 1)]
        axes.stairs([layer.out_before for layer in widths], edges, fill=True, color=COLORS[0], alpha=0.35)
        axes.stairs([layer.out_after for layer in widths], edges, fill=True, color=COLORS[1], alpha=0.85)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("layer, from input to output")
        axes.set_ylabel("output channels")

    return _svg("widths", "Output channels of every layer before and after pruning", draw)


def recovery_plot(curves: RecoveryCurves) -> str:
    """Feature error by step on a logarithmic axis, and on the right held-out agreement; empty without checks."""
    if not curves.agreements:
        return ""

    def draw(axes: Axes) -> None:
        axes.plot(curves.steps, curves.feature_errors, color=COLORS[1], linewidth=1)
        if any(error > 0 for error in curves.feature_errors):
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("feature error")
        right = axes.twinx()
        right.plot(curves.checked_steps, curves.agreements, color=COLORS[0], marker=MARKERS[0])
        right.set_ylim(*_honest_limits(curves.agreements))
        right.set_ylabel("held-out agreement")
        right.grid(visible=False)

    return _svg("recovery", "Feature error and held-out agreement during recovery", draw)


def _rows(table: LatencyTable, name: str) -> list[LatencyRow]:
    return sorted((row for row in table.rows if row.name == name), key=lambda row: row.batch)


def _batches(table: LatencyTable) -> list[int]:
    return sorted({row.batch for row in table.rows})


def _honest_limits(values: Sequence[float]) -> tuple[float, float]:
    """An axis that spans at least a twentieth of the largest value, so that noise does not look like a cliff."""
    middle, largest = (max(values) + min(values)) / 2, max(map(abs, values))
    half = max((max(values) - min(values)) * 0.75, largest * 0.025) or 0.5
    return middle - half, middle + half


def _batch_axis(axes: Axes, batches: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_xlim(min(batches) / 1.25, max(batches) * 1.25)
    axes.set_xlabel("batch size")


def _log_axis(axes: Axes) -> None:
    ticker = require("matplotlib.ticker", "draw the report's plots")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    stretch = max(1.0, 4.0 / (high / low)) ** 0.5  # less than a factor of four would show noise as a mountain
    low, high = low / stretch, high * stretch
    axes.set_ylim(low, high)
    # One decade or less gets labels in between; otherwise an axis could end up with a single number.
    steps = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _svg(name: str, title: str, draw: Any) -> str:
    matplotlib = require("matplotlib", "draw the report's plots")
    figures = require("matplotlib.figure", "draw the report's plots")
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"eightfold-{name}"}):
        figure: Figure = figures.Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        # Without this entry the file would hold the time it was drawn at.
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), name, title)


def _for_page(svg: str, name: str, title: str) -> str:
    """Strip the file's head, make ids unique in the page, and take fonts and colours from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\b(id|href|xlink:href|clip-path)="(#|url\(#)?', rf'\1="\2{name}-', svg)
    svg = re.sub(r"font: ((?:\d00|bold|italic) )?([\d.]+px)[^;\"]*", r"font-size: \2", svg)
    for color, variable in CSS.items():
        svg = svg.replace(color, f"var({variable})")
    head = f'<svg role="img" aria-label="{html.escape(title)}" class="plot" '
    box = re.search(r'viewBox="[^"]*"', svg)
    return head + (box[0] if box else "") + svg[svg.index(">") :].strip()
