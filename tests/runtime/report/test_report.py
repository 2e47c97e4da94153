"""The report: complete, escaped, self-contained, and the same bytes for the same content."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from eightfold.runtime.bench.latency import MARKS, LatencyRow, LatencyTable
from eightfold.runtime.bench.timing import Timing, speedup
from eightfold.runtime.bundle.manifest import Metric, Step
from eightfold.runtime.devices.device_cpu import Cpu
from eightfold.runtime.devices.devices import Device, DeviceState
from eightfold.runtime.report.report import render_report, write_report
from eightfold.runtime.report.report_content import (
    Accuracy,
    ArtifactSteps,
    Card,
    Check,
    Engine,
    NotDone,
    RecoveryCurves,
    ReportContent,
    Snippet,
    WidthChange,
)

EVIL = "<script>alert('$x$')</script>&"
VOID = {"meta", "br", "path", "use", "rect", "image", "line"}


def row(name: str, batch: int, times: np.ndarray, baseline: np.ndarray | None) -> LatencyRow:
    return LatencyRow(
        name=name,
        backend="onnxruntime",
        backend_version="1.31.1",
        precision="fp32",
        batch=batch,
        input_shapes={"input": (batch, 3, 64, 64)},
        scope="model",
        threads=2,
        warmup_runs=5,
        warmup_s=0.1,
        warmup_stable=True,
        rounds=10,
        metrics=(Metric(name=f"top-1 {EVIL}", value=98.0, data="digest", images=1000),),
        timing=Timing.of(times),
        speedup=None if baseline is None else speedup(baseline, times, resamples=50),
        before=DeviceState(slowdowns=0),
        after=DeviceState(slowdowns=1),
        notes=("measured beside other work",),
    )


def table() -> LatencyTable:
    random = np.random.default_rng(0)
    rows = []
    for batch in (1, 8):
        baseline = (2.0 * batch + random.gamma(1, 0.1, size=(10, 4))) / 1e3
        rows += [row("baseline fp32", batch, baseline, None), row(f"pruned {EVIL}", batch, baseline / 3, baseline)]
    return LatencyTable(
        device=Device(cpu=Cpu(model="Test CPU", architecture="x86_64"), os="Test OS"),
        versions={"onnxruntime": "1.31.1"},
        measured_at="2026-01-01T00:00:00Z",
        baseline="baseline fp32",
        seconds_per_row=0.1,
        rows=tuple(rows),
    )


def full_content() -> ReportContent:
    step = Step(name="export", tool="torch", max_abs_error=2.5e-6, cosine=1.0, seconds=2.0, notes=("folded", EVIL))
    return ReportContent(
        title=f"demo {EVIL}",
        subtitle="what it is",
        cards=(
            Card(label="Parameters", value=2.9e6, before=11.2e6, unit="count", note=EVIL),
            Card(label="Speed-up", value=3.0, low=2.9, high=3.1, unit="times"),
            Card(label="top-1", value=98.0, before=98.4, unit="percent"),
        ),
        checks=(
            Check(name="three times as fast", passed=True, seen="3.0 times"),
            Check(name="half the size", passed=False, seen="0.6", wanted="at most 0.5"),
            Check(name="engine answers", passed=None, seen="no GPU here"),
        ),
        latency=table(),
        accuracy=(
            Accuracy(artifact="baseline", metric="top-1", value=98.4, images=1000),
            Accuracy(artifact="pruned", metric="top-1", value=98.0, images=1000, change=-0.4),
            Accuracy(artifact="engine", metric="top-1", value=None, note="needs a GPU"),
            Accuracy(artifact="detector", metric="mAP", value=0.4123, unit="plain", change=0.0),
        ),
        widths=(WidthChange(layer="conv1", kind="Conv2d", in_before=3, in_after=3, out_before=64, out_after=24),),
        recovery=RecoveryCurves(
            steps=(1, 2, 3), feature_errors=(0.5, 0.2, 0.1), checked_steps=(0, 3), agreements=(0.7, 0.9)
        ),
        plan=f"plan {EVIL}",
        artifacts=(ArtifactSteps(artifact="a", bytes=1234, steps=(step,)), ArtifactSteps(artifact="bare", steps=())),
        engines=(
            Engine(name="e1", target="rtx:sm86", precision="fp16", built=True, bytes=5000, messages=(EVIL,)),
            Engine(name="e2", target="rtx:sm86", precision="int8", built=False, requires={"tensorrt_rtx": "1.7"}),
        ),
        not_done=(NotDone(what="OpenVINO was not measured", why="not asked for", remedy=f"eightfold bench {EVIL}"),),
        usage=(Snippet(title="Python", code=f"print('{EVIL}')"),),
        provenance={"Seeds": {"training": "0"}},
    )


class Reader(HTMLParser):
    """Collects tags, text and ids, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("href", "xlink:href", "src") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(full_content())


@pytest.fixture(scope="module")
def page(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_shows_every_section(page: Reader) -> None:
    sections = {"checks", "glance", "latency", "accuracy", "widths", "artifacts", "engines", "not-done", "usage"}
    assert sections | {"provenance"} <= set(page.ids)
    for words in (
        "2.90",
        "was 11.2",
        "does not hold",
        "not shown",
        "Test CPU",
        "2.5e-06",
        "NOT built",
        "not asked for",
    ):
        assert words in page.text.replace("\u202f", " "), words


def test_escapes_what_users_wrote(html: str, page: Reader) -> None:
    assert "<script" not in html
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 8


def test_loads_nothing(html: str, page: Reader) -> None:
    assert "default-src 'none'" in html
    assert all(link.startswith("#") for link in page.links)
    assert not re.findall(r"@import|url\((?!#)", html)


def test_links_and_ids_match(page: Reader) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_has_five_plots_in_the_page_s_colours(html: str) -> None:
    assert html.count('class="plot"') == 5
    assert "#0102" not in html
    assert "<metadata" not in html
    assert "font: " not in html[html.index('class="plot"') :]


def test_marks_rows_during_which_the_hardware_slowed_down(html: str) -> None:
    assert html.count('title="the hardware slowed itself down during this row"') == 4
    assert "the hardware slowed itself down during this row" in html


def test_names_the_step_that_added_the_largest_error() -> None:
    steps = (Step(name="export", max_rel_error=1e-6), Step(name="half", max_rel_error=2e-3), Step(name="build"))
    content = ReportContent(title="t", artifacts=(ArtifactSteps(artifact="a", steps=steps),))
    assert "the largest relative error, 2.0e-03, was added by half of a" in render_report(content)


def test_same_content_gives_the_same_bytes(html: str, tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", full_content())
    assert path.read_bytes() == html.encode()


def test_content_survives_json() -> None:
    assert ReportContent.from_json(full_content().to_json()) == full_content()


def test_shows_feature_error_and_agreement_of_a_recovery(html: str) -> None:
    assert "feature error" in html
    assert "held-out agreement" in html
    assert "Recovery" not in render_report(full_content().model_copy(update={"recovery": RecoveryCurves()}))


def test_nothing_but_a_title_is_a_report_too() -> None:
    reader = Reader()
    reader.feed(render_report(ReportContent(title="empty")))
    assert reader.open == []
    assert reader.ids == []


def test_a_table_with_too_few_runs_for_a_median_has_no_latency_plot() -> None:
    whole = table()
    times = np.full(3, 1.0)
    rows = tuple(row.model_copy(update={"timing": Timing.of(times), "speedup": None}) for row in whole.rows)
    html = render_report(ReportContent(title="t", latency=whole.model_copy(update={"rows": rows})))
    assert 'class="plot"' not in html
    assert "Latency" in html


def test_the_bar_beside_a_median_is_as_long_as_the_median() -> None:
    """Outliers make a mean, which once gave the faster of two candidates the longer bar."""
    slow, fast = np.full((10, 4), 0.004), np.full((10, 4), 0.001)
    fast[0, 0] = 9.0
    rows = (row("slow", 1, slow, None), row("fast", 1, fast, None))
    html = render_report(ReportContent(title="t", latency=table().model_copy(update={"rows": rows})))
    assert re.findall(r'class="meter" style="[^"]*width:([\d.]+)%"', html) == ["100.0", "25.0"]


def test_one_candidate_at_one_batch() -> None:
    whole = table()
    html = render_report(ReportContent(title="t", latency=whole.model_copy(update={"rows": whole.rows[:1]})))
    assert html.count('class="plot"') == 2  # latency and accuracy; nothing to compare with


def test_describe_names_what_does_not_hold() -> None:
    assert "half the size: DOES NOT HOLD (0.6)" in full_content().describe()


class Tables(HTMLParser):
    """Collects each table as rows of cells (attributes, text)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[dict[str, str | None], str]]]] = []
        self.in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append((dict(attrs), ""))
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            attributes, text = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = attributes, text + data


def test_cells_name_their_columns_where_a_narrow_screen_hides_the_head(html: str) -> None:
    """A phone shows rows as cards: each value stands behind the name that its column has on a wide screen."""
    tables = Tables(html).tables
    assert len(tables) >= 3
    for head, *rows in tables:
        names = [text for _, text in head]
        for row in rows:
            spans = [int(attributes.get("colspan") or 1) for attributes, _ in row]
            assert sum(spans) == len(names)
            labelled = [(each["data-label"], place) for place, (each, _) in enumerate(row) if "data-label" in each]
            assert all(label == names[place] for label, place in labelled)
            assert len(labelled) >= len(names) - 3 or max(spans) == len(names)


def test_notes_have_the_width_of_the_table(html: str) -> None:
    """In a column of their own they were a sliver beside the numbers, and on paper nothing."""
    cells = [cell for table in Tables(html).tables for row in table for cell in row]
    (notes,) = (attributes for attributes, text in cells if text.startswith("folded; "))
    assert int(notes["colspan"] or 0) >= 5


def test_a_builders_log_is_not_printed(html: str) -> None:
    assert 'details class="log"' in html
    assert "details.log > pre { display: none; }" in html.partition("@media print")[2]
    assert "1 line of the builder's log: on a screen only" in html


def test_the_page_has_every_mark_and_note_of_the_table() -> None:
    content = full_content()
    assert content.latency is not None
    first, *others = content.latency.rows
    doubtful = first.model_copy(update={"two_values_ms": (1.5, 2.5), "clocks_moved": True})
    table = content.latency.model_copy(update={"rows": (doubtful, *others)})
    html = render_report(content.model_copy(update={"latency": table}))
    assert set("#^") <= set(doubtful.marks)
    for mark in doubtful.marks:
        assert f'title="{MARKS[mark]}">{mark}</b>' in html
    for note in table.notes():
        assert escape(note, quote=False) in html
