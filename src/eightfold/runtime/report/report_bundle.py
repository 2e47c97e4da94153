"""Report from a bundle alone, for a new measurement or a bundle without a report."""

from __future__ import annotations

import json
from collections.abc import Iterator

from eightfold.errors import BundleError
from eightfold.json_types import JsonDict
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact, Manifest, Metric
from eightfold.runtime.bundle.sizes import Size
from eightfold.runtime.report.report_content import (
    Accuracy,
    ArtifactSteps,
    Card,
    Engine,
    NotDone,
    ReportContent,
    Snippet,
)
from eightfold.runtime.report.report_format import is_percentage, metric_label


def content_of_bundle(bundle: Bundle, latency: LatencyTable | None = None) -> ReportContent:
    """Content of a report about a bundle.

    Args:
        bundle: an opened bundle.
        latency: a table to show; the bundle's own when None, and none where it has none.
    """
    table = latency or _own_table(bundle)
    manifest = bundle.manifest
    return ReportContent(
        title=manifest.name,
        subtitle=f"{manifest.task.kind}: {manifest.preprocess.describe()}{_further_sizes(manifest)}",
        created=table.measured_at if table else "",
        cards=tuple(_cards(table)),
        latency=table,
        accuracy=tuple(_accuracy(bundle, table)),
        artifacts=tuple(_steps(bundle, artifact) for artifact in manifest.artifacts if artifact.format != "engine"),
        engines=tuple(_engine(bundle, artifact) for artifact in manifest.artifacts if artifact.format == "engine"),
        not_done=tuple(_not_done(bundle, table)),
        usage=_usage(bundle),
        provenance={"Bundle": _facts(manifest.provenance) | {"manifest": manifest.digest()}},
    )


def _further_sizes(manifest: Manifest) -> str:
    default = (manifest.preprocess.height, manifest.preprocess.width)
    further = [f"{width}x{height}" for height, width in manifest.sizes if (height, width) != default]
    return f"; also at {', '.join(further)}" if further else ""


def _own_table(bundle: Bundle) -> LatencyTable | None:
    path = bundle.document("latency")
    return None if path is None else LatencyTable.load(path)


def _cards(table: LatencyTable | None) -> Iterator[Card]:
    """The fastest candidate's speed-up at the smallest batch and at 8."""
    rows = table.rows if table else ()
    for batch in sorted({min((row.batch for row in rows), default=1), 8}):
        compared = [row for row in rows if row.batch == batch and row.speedup]
        fastest = max(compared, key=_speed, default=None)
        if fastest and fastest.speedup:
            speed = fastest.speedup
            note = f"{fastest.name} against {table.baseline if table else ''}"
            yield Card(
                label=f"Speed, batch {batch}",
                value=speed.value,
                low=speed.low,
                high=speed.high,
                unit="times",
                note=note,
            )


def _speed(row: LatencyRow) -> float:
    return row.speedup.value if row.speedup else 0.0


def _accuracy(bundle: Bundle, table: LatencyTable | None) -> Iterator[Accuracy]:
    baseline, layout = _baseline_metrics(bundle, table), bundle.manifest.preprocess.layout
    if not any(artifact.metrics for artifact in bundle.manifest.artifacts):
        return
    for artifact in bundle.manifest.artifacts:
        for metric in artifact.metrics:
            key = metric.name, artifact.batch, artifact.image_size(layout)
            yield _accuracy_row(artifact, metric, baseline.get(key))
        if not artifact.metrics:
            yield Accuracy(artifact=artifact.id, metric="", value=None, note="the bundle states no metric for it")


def _baseline_metrics(bundle: Bundle, table: LatencyTable | None) -> dict[tuple[str, int, Size | None], Metric]:
    """(metric, batch, size) -> the baseline's. Only the artifacts behind the table's baseline curve count as that."""
    ids = {row.artifact for row in (table.rows if table else ()) if table and row.name == table.baseline}
    found = [artifact for artifact in bundle.manifest.artifacts if artifact.id in ids]
    layout = bundle.manifest.preprocess.layout
    return {
        (metric.name, artifact.batch, artifact.image_size(layout)): metric
        for artifact in found
        for metric in artifact.metrics
    }


def _accuracy_row(artifact: Artifact, metric: Metric, baseline: Metric | None) -> Accuracy:
    scale = 100.0 if is_percentage(metric.name) else 1.0
    comparable = baseline is not None and baseline.data == metric.data and baseline is not metric
    return Accuracy(
        artifact=artifact.id,
        metric=metric_label(metric.name),
        value=scale * metric.value,
        unit="percent" if is_percentage(metric.name) else "plain",
        images=metric.images,
        change=scale * (metric.value - baseline.value) if baseline and comparable else None,
    )


def _bytes(bundle: Bundle, artifact: Artifact) -> int:
    return sum(bundle.manifest.files[name].bytes for name in (artifact.path, *artifact.files))


def _steps(bundle: Bundle, artifact: Artifact) -> ArtifactSteps:
    return ArtifactSteps(artifact=artifact.id, path=artifact.path, bytes=_bytes(bundle, artifact), steps=artifact.steps)


def _engine(bundle: Bundle, artifact: Artifact) -> Engine:
    record = _sidecar(bundle, artifact)
    seconds = record.get("seconds")
    return Engine(
        name=artifact.id,
        target=artifact.target,
        precision=artifact.precision,
        batch=artifact.batch,
        built=True,
        bytes=_bytes(bundle, artifact),
        seconds=seconds if isinstance(seconds, int | float) else None,
        requires=artifact.requires,
        messages=tuple(map(str, record.get("messages", ()))),
    )


def _sidecar(bundle: Bundle, artifact: Artifact) -> JsonDict:
    """The record beside an engine. Its form belongs to the builder; only what the report shows is looked at."""
    name = f"{artifact.path}.json"
    if name not in artifact.files:
        return {}
    try:
        record = json.loads(bundle.file(name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{bundle.path}: {name} is not JSON ({error})", remedy="make the bundle again") from None
    return record if isinstance(record, dict) else {}


def _not_done(bundle: Bundle, table: LatencyTable | None) -> Iterator[NotDone]:
    measured = {row.artifact for row in table.rows} if table else set()
    missing = [artifact.id for artifact in bundle.manifest.artifacts if artifact.id not in measured]
    if missing:
        names = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        yield NotDone(
            what=f"Latency of {names}",
            why="not in the latency table: no back end for them where it was measured, or not asked for",
            remedy=f"eightfold bench {bundle.path}",
        )


def _usage(bundle: Bundle) -> tuple[Snippet, ...]:
    python = (
        f'import eightfold as ef\n\npredictor = ef.Predictor("{bundle.path}")\nprint(predictor.predict("image.png"))'
    )
    shell = "\n".join(f"eightfold {command}" for command in _commands(bundle))
    return Snippet(title="In Python", code=python), Snippet(title="On the command line", code=shell)


def _commands(bundle: Bundle) -> tuple[str, ...]:
    return (f"inspect {bundle.path}", f"predict {bundle.path} image.png", f"bench {bundle.path}")


def _facts(data: JsonDict, prefix: str = "") -> dict[str, str]:
    """Nested provenance as 'recipe.compress.score' -> text."""
    facts: dict[str, str] = {}
    for key, value in sorted(data.items()):
        if isinstance(value, dict):
            facts |= _facts(value, f"{prefix}{key}.")
        else:
            facts[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return facts
