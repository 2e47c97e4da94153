"""The headline numbers of a run's report, and what the run promises of them."""

from __future__ import annotations

from typing import Any

from eightfold.pipeline import job as at
from eightfold.pipeline.artifacts import Wanted, files_of, onnx_artifacts, sizes_of
from eightfold.pipeline.job import Job
from eightfold.pipeline.measured import metrics_of
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bench.timing import Interval
from eightfold.runtime.report.report_content import Card, Check
from eightfold.runtime.report.report_format import metric_label

# What pruning and INT8 may cost, in points of the leading metric, before the report says so.
PRUNED_DROP, INT8_DROP = 0.5, 1.0


def int8_curve(job: Job) -> str:
    """The name of the INT8 candidate in the latency table: the one made for this machine's processor, if any, at the
    default image size."""
    default = sizes_of(job.recipe)[0]
    curves = {wanted.curve for wanted in onnx_artifacts(job.recipe) if wanted.size == default}
    names = {row.name for row in LatencyTable.load(job.path(at.LATENCY)).rows if row.precision == "int8"}
    return min(names & curves, default="")


def headline(job: Job, variant: str) -> Wanted:
    """The FP32 graph of a variant that headlines are about: the smallest batch at the default image size."""
    return Wanted(variant, "fp32", "any", min(job.recipe.export.batches), size=sizes_of(job.recipe)[0])


def speedup_of(table: LatencyTable, curve: str, batch: int) -> Interval | None:
    return next((row.speedup for row in table.rows if (row.name, row.batch) == (curve, batch)), None)


def metric_of(job: Job, artifact: str) -> float:
    """The leading metric of an artifact in percent."""
    return 100 * metrics_of(job)[artifact][0].value


def leading_label(job: Job) -> str:
    return metric_label(job.task.metrics[0])


def _capital(label: str) -> str:
    """As a heading: "Top-1"; mAP keeps its own capitals."""
    return label.capitalize() if label.islower() else label


def bytes_of(job: Job, wanted: Wanted) -> int:
    """Size of a graph with its weights."""
    return sum(job.path(name).stat().st_size for name in files_of([wanted]))


def cards_of(job: Job, table: LatencyTable) -> tuple[Card, ...]:
    before, after = job.read(at.BASELINE_FACTS), job.read(at.PRUNED_FACTS)
    int8, batch = int8_curve(job), min(job.recipe.export.batches)
    best, baseline = int8 or headline(job, "pruned").curve, headline(job, "baseline").id
    sizes = {wanted.id: bytes_of(job, wanted) for wanted in onnx_artifacts(job.recipe)}
    cards = [
        Card(label="Parameters", value=after["parameters"], before=before["parameters"], unit="count"),
        Card(label="MACs per image", value=after["macs"], before=before["macs"], unit="MACs"),
        Card(
            label=_capital(leading_label(job)),
            value=metric_of(job, f"{best}-b{batch}"),
            before=metric_of(job, baseline),
            unit="percent",
            note=best,
        ),
        Card(label="File", value=sizes[f"{best}-b{batch}"], before=sizes[baseline], unit="bytes"),
    ]
    return (*cards, *_speed_cards(job, table, best))


def _speed_cards(job: Job, table: LatencyTable, curve: str) -> list[Card]:
    found = [(batch, speedup_of(table, curve, batch)) for batch in job.recipe.export.batches if batch in (1, 8)]
    return [
        Card(label=f"Speed, batch {batch}", value=ratio.value, low=ratio.low, high=ratio.high, unit="times", note=curve)
        for batch, ratio in found
        if ratio is not None
    ]


def checks_of(job: Job, table: LatencyTable) -> tuple[Check, ...]:
    batch = min(job.recipe.export.batches)
    baseline, pruned = (metric_of(job, headline(job, variant).id) for variant in ("baseline", "pruned"))
    int8 = int8_curve(job)
    checks = [
        _drop_check("Pruned FP32 keeps the accuracy", baseline, pruned, PRUNED_DROP),
        _alignment_check(job),
        *(_speed_check(table, curve) for curve in dict.fromkeys(row.name for row in table.rows if row.speedup)),
    ]
    if int8:
        checks.append(_drop_check("INT8 keeps the accuracy", baseline, metric_of(job, f"{int8}-b{batch}"), INT8_DROP))
    if job.recipe.engines:
        checks.append(Check(name="Engines give the same answers", passed=None, seen="no GPU on this machine"))
    return tuple(checks)


def _drop_check(name: str, before: float, after: float, limit: float) -> Check:
    seen = f"{before:.1f}% before, {after:.1f}% after"
    # Both are shares of the same images, so the difference is exact up to rounding in the last digit.
    return Check(name=name, passed=before - after <= limit + 1e-9, seen=seen, wanted=f"at most {limit} points less")


def _speed_check(table: LatencyTable, curve: str) -> Check:
    """Faster at every batch size, by the lower end of the interval."""
    rows = [row for row in table.rows if row.name == curve and row.speedup is not None]
    lows = {row.batch: row.speedup.low for row in rows if row.speedup is not None}
    slowest = min(lows, key=lambda batch: lows[batch])
    name = f"{curve} is faster than the baseline"
    if busy := table.disturbance():
        return Check(name=name, passed=None, seen=busy)
    return Check(
        name=name,
        passed=lows[slowest] > 1,
        seen=f"at least {lows[slowest]:.2f} times as fast (batch {slowest})",
        wanted="more than 1.00 at every batch size",
    )


def _alignment_check(job: Job) -> Check:
    from eightfold.compress.plan.plan import PrunePlan

    multiple = PrunePlan.load(job.path(at.PLAN)).multiple
    changed: list[str] = []
    kept: list[str] = []
    for width in job.read(at.WIDTHS):
        for before, after, excepted in _ends(job, width):
            if after % multiple and not excepted:
                (changed if after != before else kept).append(width["layer"])
    seen = f"not {', '.join(changed)}" if changed else "all, image input and classes excepted"
    if kept:
        seen += f"; left as they were: {', '.join(dict.fromkeys(kept))}"
    return Check(name=f"Layer widths are multiples of {multiple}", passed=not changed, seen=seen)


def _ends(job: Job, width: dict[str, Any]) -> list[tuple[int, int, bool]]:
    """(before, after, whether it may be any number) of a layer's inputs and outputs.

    The image has the channels it has, and the classes are given.
    """
    images, classes = {job.recipe.preprocess.channels}, {len(job.classes)}
    return [
        (width["in_before"], width["in_after"], width["in_after"] in images),
        (width["out_before"], width["out_after"], width["out_after"] in classes),
    ]
