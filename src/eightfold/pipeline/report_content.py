"""What a run's report shows, gathered from the files that its steps left."""

from __future__ import annotations

from typing import Any

from eightfold.export.commits import describe_commit
from eightfold.pipeline import job as at
from eightfold.pipeline.artifacts import Wanted, engine_artifacts, files_of, onnx_artifacts, sizes_of
from eightfold.pipeline.job import Job
from eightfold.pipeline.measure_steps import metrics_of, steps_of
from eightfold.recipe import Recipe
from eightfold.runtime.latency import LatencyTable
from eightfold.runtime.manifest import Metric, Task
from eightfold.runtime.report_content import (
    Accuracy,
    ArtifactSteps,
    Card,
    Check,
    Engine,
    LayerWidths,
    NotDone,
    ReportContent,
    Snippet,
)
from eightfold.runtime.report_format import metric_label
from eightfold.runtime.timing import Interval
from eightfold.runtime.versions import runtime_versions

# What pruning and INT8 may cost, in points of the leading metric, before the report says so.
PRUNED_DROP, INT8_DROP = 0.5, 1.0


def content_of(job: Job) -> ReportContent:
    table = LatencyTable.load(job.path(at.LATENCY))
    recipe = job.recipe
    return ReportContent(
        title=recipe.name,
        subtitle=f"{recipe.model.source} at {_sizes(recipe)}, "
        f"{len(job.train_images)} training and {len(job.test_images)} test images",
        created=table.measured_at,
        cards=_cards(job, table),
        checks=_checks(job, table),
        latency=table,
        accuracy=_accuracy(job),
        widths=_widths(job),
        plan=_plan(job),
        artifacts=_artifacts(job),
        engines=_engines(job),
        not_done=_not_done(job),
        usage=_usage(job),
        provenance=_provenance(job),
    )


def _sizes(recipe: Recipe) -> str:
    default = recipe.preprocess.height, recipe.preprocess.width
    return " and ".join(f"{width}x{height}" for height, width in (default, *recipe.export.sizes))


def int8_curve(job: Job) -> str:
    """The name of the INT8 candidate in the latency table: the one made for this machine's processor, if any, at the
    default image size."""
    default = sizes_of(job.recipe)[0]
    curves = {wanted.curve for wanted in onnx_artifacts(job.recipe) if wanted.size == default}
    names = {row.name for row in LatencyTable.load(job.path(at.LATENCY)).rows if row.precision == "int8"}
    return min(names & curves, default="")


def _headline(job: Job, variant: str) -> Wanted:
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


def _bytes(job: Job, wanted: Wanted) -> int:
    """Size of a graph with its weights."""
    return sum(job.path(name).stat().st_size for name in files_of([wanted]))


def _cards(job: Job, table: LatencyTable) -> tuple[Card, ...]:
    before, after = job.read(at.BASELINE_FACTS), job.read(at.PRUNED_FACTS)
    int8, batch = int8_curve(job), min(job.recipe.export.batches)
    best, baseline = int8 or _headline(job, "pruned").curve, _headline(job, "baseline").id
    sizes = {wanted.id: _bytes(job, wanted) for wanted in onnx_artifacts(job.recipe)}
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


def _checks(job: Job, table: LatencyTable) -> tuple[Check, ...]:
    batch = min(job.recipe.export.batches)
    baseline, pruned = (metric_of(job, _headline(job, variant).id) for variant in ("baseline", "pruned"))
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
    from eightfold.compress.plan import PrunePlan

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


def _accuracy(job: Job) -> tuple[Accuracy, ...]:
    metrics = metrics_of(job)
    rows = [
        _accuracy_row(wanted, metric, baseline)
        for wanted in onnx_artifacts(job.recipe)
        for metric, baseline in zip(metrics[wanted.id], metrics[_baseline_of(wanted).id], strict=True)
    ]
    engines = [
        Accuracy(artifact=wanted.id, metric=leading_label(job), value=None, note="needs a GPU to run")
        for wanted in engine_artifacts(job.recipe)
    ]
    return (*rows, *engines)


def _baseline_of(wanted: Wanted) -> Wanted:
    return Wanted("baseline", "fp32", "any", wanted.batch, size=wanted.size)


def _accuracy_row(wanted: Wanted, metric: Metric, baseline: Metric) -> Accuracy:
    change = None if wanted == _baseline_of(wanted) else 100 * (metric.value - baseline.value)
    note = "run by onnxruntime on the CPU" if wanted.target not in ("any", "cpu-x86", "cpu-arm") else ""
    return Accuracy(
        artifact=wanted.id,
        metric=metric_label(metric.name),
        value=100 * metric.value,
        images=metric.images,
        change=change,
        note=note,
    )


def _widths(job: Job) -> tuple[LayerWidths, ...]:
    return tuple(LayerWidths.model_validate(width) for width in job.read(at.WIDTHS))


def _plan(job: Job) -> str:
    from eightfold.compress.plan import PrunePlan

    return PrunePlan.load(job.path(at.PLAN)).describe()


def _artifacts(job: Job) -> tuple[ArtifactSteps, ...]:
    steps = steps_of(job)
    return tuple(
        ArtifactSteps(
            artifact=wanted.id,
            path=wanted.path,
            bytes=_bytes(job, wanted),
            steps=tuple(steps[wanted.id]),
        )
        for wanted in onnx_artifacts(job.recipe)
    )


def _engines(job: Job) -> tuple[Engine, ...]:
    return tuple(_engine(job, wanted) for wanted in engine_artifacts(job.recipe))


def _engine(job: Job, wanted: Wanted) -> Engine:
    from eightfold.export.tensorrt.record import EngineRecord, sidecar_path

    record = EngineRecord.load(sidecar_path(job.path(wanted.path)))
    return Engine(
        name=wanted.id,
        target=record.target,
        precision=record.precision,
        batch=wanted.batch,
        built=True,
        bytes=record.engine_bytes,
        seconds=record.seconds,
        requires=record.requires,
        messages=record.messages,
    )


def _not_done(job: Job) -> tuple[NotDone, ...]:
    if job.recipe.engines is None:
        return ()
    return (
        NotDone(
            what="Latency and accuracy of the engines",
            why="an engine runs only on a GPU of its compute capability, and this machine has none",
            remedy="copy the bundle to such a machine and run: eightfold bench BUNDLE",
        ),
    )


def _usage(job: Job) -> tuple[Snippet, ...]:
    where = job.path(at.BUNDLE)
    python = f'import eightfold as ef\npredictor = ef.Predictor("{where}")\nprint(predictor.predict("image.png"))'
    shell = f"eightfold predict {where} image.png\neightfold bench {where}\neightfold inspect {where}"
    return Snippet(title="In Python", code=python), Snippet(title="On the command line", code=shell)


def _read(task: Task) -> str:
    """How the metrics' runs read the outputs: thresholds matter."""
    options = (f"{name} {value}" for name, value in sorted(task.options.items()))
    return ", ".join((f"decoded by {task.decode}", *options))


def _provenance(job: Job) -> dict[str, dict[str, str]]:
    recipe = job.recipe
    digests = {
        "training images": job.train_images.digest(),
        "test images": job.test_images.digest(),
        "preprocess": recipe.preprocess.digest(),
    }
    settings = {
        "seed": str(recipe.seed),
        "score": recipe.compress.score,
        "rule": recipe.compress.rule,
        "keep ratio": str(recipe.compress.keep_ratio),
        "calibration": f"{recipe.calibrate.method}, {recipe.calibrate.images} images",
        "preprocess": recipe.preprocess.describe(),
        "outputs": _read(job.outputs),
    }
    made_by = {name: describe_commit(state) for name, state in job.commits.items()}
    return {"Recipe": settings, "Digests": digests, "Versions": runtime_versions()} | (
        {"Commits": made_by} if made_by else {}
    )
