"""The report: one HTML file with everything in it, made from `ReportContent`. The only module that uses jinja2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import eightfold
from eightfold.extras import require
from eightfold.files import PathLike, write_text
from eightfold.json_types import JsonDict
from eightfold.runtime.bench.latency import MARKS
from eightfold.runtime.report import report_format, report_plots
from eightfold.runtime.report.report_content import ArtifactSteps, ReportContent

TEMPLATE = "report.html.j2"
# Other work on this many cores is more than housekeeping: the report then opens with a warning.
BUSY_CORES = 0.25
FILTERS: dict[str, Callable[..., str]] = {
    "quantity": report_format.quantity,
    "digits": report_format.digits,
    "milliseconds": report_format.milliseconds,
    "signed": report_format.signed,
    "relative": lambda after, before: report_format.relative(before, after),
    "error": report_format.error,
    "share_interval": report_format.share_interval,
}


def write_report(path: PathLike, content: ReportContent) -> Path:
    """Write a self-contained HTML report: no scripts, nothing loaded; the same content gives the same bytes.

    Args:
        path: the file to write; replaced whole or not at all.
        content: what to show.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    write_text(path, render_report(content))
    return Path(path)


def render_report(content: ReportContent) -> str:
    """The report's HTML. All text of `content` is escaped."""
    jinja2 = require("jinja2", "write a report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    template = environment.from_string(
        (resources.files("eightfold.runtime.report") / TEMPLATE).read_text(encoding="utf-8")
    )
    rendered: str = template.render(content=content, version=eightfold.__version__, **_drawings(content))
    return rendered


def _drawings(content: ReportContent) -> JsonDict:
    table = content.latency
    drawn = table is not None and bool(table.rows)
    return {
        "table": table if drawn else None,
        "marks": MARKS,
        "busy": table is not None and table.others_cores >= BUSY_CORES,
        "series": report_plots.series_of(table) if table else {},
        "glyphs": report_plots.GLYPHS,
        "latency_plot": report_plots.latency_plot(table) if table and drawn else "",
        "speedup_plot": report_plots.speedup_plot(table) if table and drawn else "",
        "accuracy_plot": report_plots.accuracy_plot(table) if table and drawn else "",
        "worst": _worst_step(content.artifacts),
        "widths_plot": report_plots.widths_plot(content.widths),
        "recovery_plot": report_plots.recovery_plot(content.recovery),
    }


def _worst_step(artifacts: Sequence[ArtifactSteps]) -> str:
    """The step, and its artifact, that added the largest relative error."""
    errors = [
        (step.max_rel_error, step.name, artifact.artifact)
        for artifact in artifacts
        for step in artifact.steps
        if step.max_rel_error is not None
    ]
    if not errors:
        return "with the error that each step added"
    largest, step, artifact = max(errors)
    return f"the largest relative error, {report_format.error(largest)}, was added by {step} of {artifact}"
