"""The headline numbers of a run's report, and what the run promises of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from eightfold.json_types import JsonDict
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import Artifacts, ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.measured import metrics_of
from eightfold.pipeline.report.remedies import gain_speed, keep_accuracy, keep_int8_accuracy
from eightfold.pipeline.report.verdicts import AccuracyEvidence, MeasuredMetric, judge_drop
from eightfold.runtime.bench.candidates import candidate_name
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bench.timing import Interval
from eightfold.runtime.predict.select_artifact import fastest_network, ms_per_image
from eightfold.runtime.report.report_content import Card, Check
from eightfold.runtime.report.report_format import metric_label


def int8_curve(job: Job) -> str:
    """The name of the INT8 candidate in the latency table: the one made for this machine's processor, if any, at the
    default image size."""
    default = job.artifacts.sizes[0]
    curves = {wanted.curve for wanted in job.artifacts.onnx if wanted.size == default}
    names = {row.name for row in LatencyTable.load(job.path(at.LATENCY)).rows if row.precision == "int8"}
    return min(names & curves, default="")


def best_curve(job: Job, table: LatencyTable) -> str:
    """The artifacts that a Predictor runs on this machine when nothing else is asked for: headlines are about them."""
    return _fastest(job, table, filter(None, (int8_curve(job), headline(job, "pruned").curve)))[0]


def best_name(job: Job, table: LatencyTable, curve: str) -> str:
    """The name in the table of a curve on the back end that is fastest for it: the one that a Predictor takes."""
    return candidate_name(*_fastest(job, table, (curve,)))


def _fastest(job: Job, table: LatencyTable, curves: Iterable[str]) -> tuple[str, str]:
    """Of the curves on each back end that measured them: the fastest curve, and its back end."""
    backends = list(dict.fromkeys(row.backend for row in table.rows))
    pairs = [(curve, backend) for curve in dict.fromkeys(curves) for backend in backends]
    found = fastest_network([(backend, _ids_of(job, curve)) for curve, backend in pairs], table)
    return pairs[0 if found is None else found[0]]


def _ids_of(job: Job, curve: str) -> list[str]:
    return [f"{curve}-b{batch}" for batch in sorted(job.recipe.export.batches)]


def _ms_per_image(job: Job, curve: str, table: LatencyTable) -> float:
    _, backend = _fastest(job, table, (curve,))
    return ms_per_image(backend, _ids_of(job, curve), table) or math.inf


def headline(job: Job, variant: str) -> ArtifactSpec:
    """The FP32 graph of a variant that headlines are about: the smallest batch at the default image size."""
    return ArtifactSpec(variant, "fp32", "any", min(job.recipe.export.batches), size=job.artifacts.sizes[0])


def speedup_of(table: LatencyTable, curve: str, batch: int) -> Interval | None:
    """Speed-up of a row of the table; None if there is none."""
    return next((row.speedup for row in table.rows if (row.name, row.batch) == (curve, batch)), None)


def share_of_backend(job: Job, table: LatencyTable, name: str, batch: int) -> str:
    """Words for how fast a row is beside the original on the same back end, where another one measured the baseline;
    nothing where that is the same or was not measured. What a back end gains alone is no merit of the artifact."""
    row = next(each for each in table.rows if (each.name, each.batch) == (name, batch))
    original = speedup_of(table, candidate_name(headline(job, "baseline").curve, row.backend), batch)
    if row.speedup is None or original is None or original.value == 1:
        return ""
    return f"{row.speedup.value / original.value:.2f}x beside the original on {row.backend}"


def metric_of(job: Job, artifact: str) -> float:
    """The leading metric of an artifact in percent."""
    return 100 * metrics_of(job)[artifact][0].value


def leading_label(job: Job) -> str:
    return metric_label(job.task.metrics[0])


def _capital(label: str) -> str:
    """As a heading: "Top-1"; mAP keeps its own capitals."""
    return label.capitalize() if label.islower() else label


def bytes_of(job: Job, wanted: ArtifactSpec) -> int:
    """Size of a graph with its weights."""
    return sum(job.path(name).stat().st_size for name in Artifacts([wanted]).files)


def cards_of(job: Job, table: LatencyTable) -> tuple[Card, ...]:
    before, after = job.read(at.BASELINE_FACTS), job.read(at.PRUNED_FACTS)
    best, batch = best_curve(job, table), min(job.recipe.export.batches)
    baseline = headline(job, "baseline").id
    sizes = {wanted.id: bytes_of(job, wanted) for wanted in job.artifacts.onnx}
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
    return (*cards, *_speed_cards(job, table, best_name(job, table, best)))


def _speed_cards(job: Job, table: LatencyTable, name: str) -> list[Card]:
    found = [(batch, speedup_of(table, name, batch)) for batch in job.recipe.export.batches if batch in (1, 8)]
    return [
        Card(
            label=f"Speed, batch {batch}",
            value=ratio.value,
            low=ratio.low,
            high=ratio.high,
            unit="times",
            note="; ".join(filter(None, (name, share_of_backend(job, table, name, batch)))),
        )
        for batch, ratio in found
        if ratio is not None
    ]


def checks_of(job: Job, table: LatencyTable) -> tuple[Check, ...]:
    limits, int8, evidence = job.recipe.limits, int8_curve(job), job.read(at.EVIDENCE)
    pruned = headline(job, "pruned")
    checks = [
        judge_drop(
            "Pruned FP32 keeps the accuracy", _evidence(job, evidence, pruned.id), limits.max_drop, keep_accuracy(job)
        ),
        _alignment_check(job),
        *(_speed_check(job, table, curve) for curve in _compared_curves(job, table)),
    ]
    if int8:
        shown = _evidence(job, evidence, f"{int8}-b{pruned.batch}")
        checks.append(judge_drop("INT8 keeps the accuracy", shown, limits.max_drop, keep_int8_accuracy(job)))
    if job.recipe.engines:
        checks.append(Check(name="Engines give the same answers", passed=None, seen="no GPU on this machine"))
    return tuple(checks)


def _evidence(job: Job, found: JsonDict, artifact: str) -> AccuracyEvidence:
    before, after = (
        MeasuredMetric(metric_of(job, each), tuple(100 * part for part in found["parts"][each]))
        for each in (headline(job, "baseline").id, artifact)
    )
    return AccuracyEvidence(before, after, len(job.test_images), 100 * found["chance"], leading_label(job))


def _compared_curves(job: Job, table: LatencyTable) -> list[str]:
    """All curves of the table but the baselines."""
    wanted = [each for each in job.artifacts.onnx if each.variant != "baseline"]
    compared = {row.artifact for row in table.rows if row.speedup}
    return list(dict.fromkeys(each.curve for each in wanted if each.id in compared))


def _speed_check(job: Job, table: LatencyTable, curve: str) -> Check:
    """Fast enough at every batch size, by the lower end of the interval, on the back end that is fastest for it; and of
    INT8, whether pruned FP32 is faster."""
    limit, name = job.recipe.limits.min_speedup, best_name(job, table, curve)
    rows = [row for row in table.rows if row.name == name and row.speedup is not None]
    lows = {row.batch: row.speedup.low for row in rows if row.speedup is not None}
    slowest = min(lows, key=lambda batch: lows[batch])
    promise = f"{name} is faster than the baseline" if limit == 1 else f"{name} is {limit:g} times as fast"
    if busy := table.disturbance():
        return Check(
            name=promise,
            passed=None,
            seen=busy + _beaten(job, table, curve),
            over_limit=any(row.speedup.value < limit for row in rows if row.speedup is not None),
        )
    passed = lows[slowest] > limit if limit == 1 else lows[slowest] >= limit
    return Check(
        name=promise,
        passed=passed,
        seen=f"at least {lows[slowest]:.2f} times as fast (batch {slowest}){_beaten(job, table, curve)}",
        wanted=f"{'more than' if limit == 1 else 'at least'} {limit:.2f} at every batch size",
        remedy="" if passed else gain_speed(job, rows[0].precision),
    )


def _beaten(job: Job, table: LatencyTable, curve: str) -> str:
    """Of INT8 that is slower than the float network it was made from."""
    pruned = headline(job, "pruned").curve
    if curve != int8_curve(job):
        return ""
    times = _ms_per_image(job, curve, table), _ms_per_image(job, pruned, table)
    if times[0] <= times[1]:
        return ""
    return f"; INT8 loses on this machine: {pruned} is {times[0] / times[1]:.2f} times as fast, and a Predictor runs it"


def _alignment_check(job: Job) -> Check:
    from eightfold.compress.plan.plan import PrunePlan

    multiple = PrunePlan.load(job.path(at.PLAN)).multiple
    changed: list[str] = []
    kept: list[str] = []
    for width in job.read(at.WIDTHS):
        for before, after, excepted in _ends(job, width, multiple):
            if after % multiple and not excepted:
                (changed if after != before else kept).append(width["layer"])
    seen = f"not {', '.join(changed)}" if changed else "all, image input and classes excepted"
    if kept:
        seen += f"; left as they were: {', '.join(dict.fromkeys(kept))}"
    remedy = f"name these layers in compress.ignore, or lower compress.multiple from {multiple}" if changed else ""
    return Check(name=f"Layer widths are multiples of {multiple}", passed=not changed, seen=seen, remedy=remedy)


def _ends(job: Job, width: JsonDict, multiple: int) -> list[tuple[int, int, bool]]:
    """(before, after, whether it may be any number) of a layer's inputs and outputs.

    The image has the channels it has, also where it is concatenated with maps, and the classes are given.
    """
    channels, classes = job.recipe.preprocess.channels, {len(job.classes)}
    inputs = width["in_before"], width["in_after"]
    image = inputs[1] == channels or {each % multiple for each in inputs} == {channels % multiple}
    return [
        (*inputs, image),
        (width["out_before"], width["out_after"], width["out_after"] in classes),
    ]
