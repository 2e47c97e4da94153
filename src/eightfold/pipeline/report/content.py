"""Gathers the content of a run's report from the files that its steps left."""

from __future__ import annotations

from eightfold.export.bundle.commits import describe_commit
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.measured import metrics_of, steps_of
from eightfold.pipeline.report.headlines import bytes_of, cards_of, checks_of, leading_label
from eightfold.recipe import Recipe
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.manifest import Metric, Task
from eightfold.runtime.report.report_content import (
    Accuracy,
    ArtifactSteps,
    Engine,
    NotDone,
    RecoveryCurves,
    ReportContent,
    Snippet,
    WidthChange,
)
from eightfold.runtime.report.report_format import metric_label
from eightfold.versions import runtime_versions


def content_of(job: Job) -> ReportContent:
    """Content of the run's report."""
    table = LatencyTable.load(job.path(at.LATENCY))
    recipe = job.recipe
    return ReportContent(
        title=recipe.name,
        subtitle=f"{job.quoted.model.source} at {_sizes(recipe)}, "
        f"{len(job.train_images)} training and {len(job.test_images)} test images",
        created=table.measured_at,
        cards=cards_of(job, table),
        checks=checks_of(job, table),
        latency=table,
        accuracy=_accuracy(job),
        widths=_widths(job),
        recovery=recovery_of(job),
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


def _accuracy(job: Job) -> tuple[Accuracy, ...]:
    metrics = metrics_of(job)
    rows = [
        _accuracy_row(wanted, metric, baseline)
        for wanted in job.artifacts.onnx
        for metric, baseline in zip(metrics[wanted.id], metrics[_baseline_of(wanted).id], strict=True)
    ]
    engines = [
        Accuracy(artifact=wanted.id, metric=leading_label(job), value=None, note="needs a GPU to run")
        for wanted in job.artifacts.engines
    ]
    return (*rows, *engines)


def _baseline_of(wanted: ArtifactSpec) -> ArtifactSpec:
    return ArtifactSpec("baseline", "fp32", "any", wanted.batch, size=wanted.size)


def _accuracy_row(wanted: ArtifactSpec, metric: Metric, baseline: Metric) -> Accuracy:
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


def _widths(job: Job) -> tuple[WidthChange, ...]:
    return tuple(WidthChange.model_validate(width) for width in job.read(at.WIDTHS))


def recovery_of(job: Job) -> RecoveryCurves:
    """Feature error and agreement by step, from the log of the recovery; empty without one."""
    from eightfold.compress.train.log import CHECK, read_log

    file = job.path(at.RECOVERY_LOG)
    rows = read_log(file) if job.recipe.compress.recover_minutes and file.is_file() else []
    steps, checks = [row for row in rows if "features" in row], [row for row in rows if CHECK in row]
    return RecoveryCurves(
        steps=tuple(int(row["step"]) for row in steps),
        feature_errors=tuple(row["features"] for row in steps),
        checked_steps=tuple(int(row["step"]) for row in checks),
        agreements=tuple(row[CHECK] for row in checks),
    )


def _plan(job: Job) -> str:
    from eightfold.compress.plan.plan import PrunePlan

    return PrunePlan.load(job.path(at.PLAN)).describe()


def _artifacts(job: Job) -> tuple[ArtifactSteps, ...]:
    steps = steps_of(job)
    return tuple(
        ArtifactSteps(
            artifact=wanted.id,
            path=wanted.path,
            bytes=bytes_of(job, wanted),
            steps=tuple(steps[wanted.id]),
        )
        for wanted in job.artifacts.onnx
    )


def _engines(job: Job) -> tuple[Engine, ...]:
    return tuple(_engine(job, wanted) for wanted in job.artifacts.engines)


def _engine(job: Job, wanted: ArtifactSpec) -> Engine:
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
    """The decoder of the metrics' runs with its options: thresholds matter."""
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
