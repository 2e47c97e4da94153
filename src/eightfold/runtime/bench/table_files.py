"""A latency table as a file: JSON, which can be read again, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from eightfold.errors import UsageError
from eightfold.files import PathLike, write_text
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable

COLUMNS = (
    "name",
    "batch",
    "backend",
    "precision",
    "mode",
    "scope",
    "threads",
    "cores",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "max_ms",
    "images_per_s",
    "speedup",
    "speedup_low",
    "speedup_high",
    "peak_memory_bytes",
    "starts",
    "interrupted",
    "marks",
)


def cells_of(row: LatencyRow) -> dict[str, str]:
    """Column -> text, with numbers in full; empty where nothing is known."""
    timing, speed = row.timing, row.speedup
    values: dict[str, object] = {
        **{name: getattr(row, name) for name in ("name", "batch", "backend", "precision", "mode", "scope", "threads")},
        "cores": " ".join(map(str, row.cores)),
        **{name: getattr(timing, name) for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")},
        "images_per_s": row.images_per_s,
        **({"speedup": speed.value, "speedup_low": speed.low, "speedup_high": speed.high} if speed else {}),
        "peak_memory_bytes": row.peak_memory_bytes,
        "starts": max(1, len(row.start_p50_ms)),
        "interrupted": row.interrupted,
        "marks": row.marks,
    }
    return {name: _text(values.get(name)) for name in COLUMNS}


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def csv_of(table: LatencyTable) -> str:
    """One line for each row, below the names of the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(cells_of, table.rows))
    return text.getvalue()


def markdown_of(table: LatencyTable) -> str:
    """The printed table as Markdown, with the machine above and the notes below."""
    head, rows = table.cells()
    lines = [_markdown_line(head), _markdown_line(["---"] * len(head)), *map(_markdown_line, rows)]
    context, notes = table.context(), [f"- {note}" for note in table.notes()]
    return "\n".join([*context, "", *lines, *([""] if notes else []), *notes]) + "\n"


def _markdown_line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


FORMS = {".json": LatencyTable.to_json, ".csv": csv_of, ".md": markdown_of}


def require_form(path: PathLike | None) -> None:
    """Raise UsageError for a name that says no form."""
    if path is not None and Path(path).suffix not in FORMS:
        raise UsageError(f"a table as {Path(path).suffix or 'a file without a suffix'!r}", allowed=", ".join(FORMS))


def write_table(table: LatencyTable, path: PathLike) -> Path:
    """Write a table in the form that the suffix says: .json, .csv or .md."""
    require_form(path)
    write_text(path, FORMS[Path(path).suffix](table))
    return Path(path)
