"""Steps that measure the artifacts: accuracy, latency, report and bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.files import sha256_of_file
from eightfold.json_types import JsonDict
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import Artifacts, ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.measured import families, metrics_of, steps_of
from eightfold.pipeline.job.runner import PipelineStep, stamps
from eightfold.pipeline.job.step_keys import GRAPHS, device_key, image_key, versions
from eightfold.pipeline.report.content import content_of
from eightfold.progress import track
from eightfold.runtime.bundle.manifest import Artifact, Metric
from eightfold.runtime.report.report_format import metric_label
from eightfold.versions import runtime_versions

if TYPE_CHECKING:
    from eightfold.runtime.bench.candidates import Candidate


def measure_steps(job: Job) -> list[PipelineStep]:
    """Steps that evaluate, measure, report and bundle."""
    recipe = job.recipe
    graphs = job.artifacts.onnx.files
    facts = tuple(at.facts_of(family) for family in families(job))
    engines = (at.ENGINES,) if recipe.engines else ()
    numbers = (at.METRICS, at.EVIDENCE, at.LATENCY, at.BASELINE_FACTS, at.PRUNED_FACTS, at.WIDTHS, at.PLAN, at.RANGES)
    images = {
        **image_key(job),
        "task": job.task.section.model_dump(mode="json"),
        **versions((*GRAPHS, "faster_coco_eval")),
    }
    # Another back end that is installed is another candidate.
    times = {"bench": recipe.bench.model_dump(), **versions((*GRAPHS, "openvino")), **device_key()}
    everything = {"recipe": job.quoted.model_dump(mode="json"), "versions": runtime_versions()}
    measured = (at.METRICS, *_benched(job).files)
    answers = (at.ANSWERS,) if job.by_agreement else ()
    return [
        PipelineStep(
            "evaluate", (at.DATA, *answers, *graphs), (at.METRICS, at.EVIDENCE), images, partial(measure_accuracy, job)
        ),
        PipelineStep("bench", measured, (at.LATENCY,), times, partial(measure_latency, job)),
        PipelineStep("report", (*numbers, *facts, *engines), (at.REPORT,), everything, partial(write_run_report, job)),
        PipelineStep(
            "bundle", (at.REPORT, *numbers, *facts, *graphs, *engines), (at.BUNDLE,), everything, partial(bundle, job)
        ),
    ]


def measure_accuracy(job: Job, scratch: Path) -> str:
    """The task's metrics of every graph on the test images, measured by running that graph itself on this CPU."""
    from eightfold.tasks.networks import onnx_network

    judged, parts = {wanted.id for wanted in job.artifacts.judged}, dict[str, tuple[float, ...]]()
    metrics = {}
    for wanted in track(job.artifacts.onnx, "measuring accuracy"):
        network = onnx_network(job.path(wanted.path), job.fed_to(wanted), job.outputs)
        if wanted.id in judged:
            values, parts[wanted.id] = dataclasses.astuple(job.task.measure(network, job.test_images))
        else:
            values = job.task.evaluate(network, job.test_images)
        metrics[wanted.id] = _metrics(job, values)
    job.write(at.METRICS, {name: [each.model_dump(mode="json") for each in found] for name, found in metrics.items()})
    job.write(at.EVIDENCE, {"chance": job.task.chance(job.test_images), "parts": parts})
    lowest, (least, *_) = min(metrics.items(), key=lambda item: item[1][0].value)
    return f"{len(metrics)} graphs; lowest {metric_label(least.name)} {least.value:.1%} ({lowest})"


def _metrics(job: Job, values: Mapping[str, float]) -> list[Metric]:
    images = job.test_images
    return [
        Metric(name=name, value=values[name], data=images.digest(), images=len(images)) for name in job.task.metrics
    ]


def _benched(job: Job) -> Artifacts:
    """The artifacts for this kind of machine: the float graphs, and INT8 for its processor."""
    from eightfold.runtime.backends.targets import targets_of

    here = ("any", *targets_of("onnxruntime"))
    return Artifacts(wanted for wanted in job.artifacts.onnx if wanted.target in here)


def measure_latency(job: Job, _: Path) -> str:
    """Measure the latency of the artifacts for this machine; returns a summary."""
    from eightfold.runtime.backends.base import SessionOptions
    from eightfold.runtime.bench.bench import BenchOptions, compare_latency
    from eightfold.runtime.bench.interleave import Schedule

    section, metrics = job.recipe.bench, metrics_of(job)
    options = BenchOptions(
        schedule=Schedule(seconds=section.seconds_per_row), session=SessionOptions(threads=section.threads)
    )
    candidates = [_candidate(job, wanted, metrics, backend) for backend in _backends(job) for wanted in _benched(job)]
    table = compare_latency(candidates, baseline=candidates[0].name, options=options)
    table.save(job.path(at.LATENCY))
    return f"{len(table.rows)} rows"


def _backends(job: Job) -> list[str]:
    """Those that the recipe names, or else all of the processor that are installed."""
    from eightfold.runtime.backends import backend_named
    from eightfold.runtime.backends.targets import cpu_backends

    return [backend_named(name).name for name in job.recipe.bench.backends] or cpu_backends()


def _candidate(job: Job, wanted: ArtifactSpec, metrics: Mapping[str, tuple[Metric, ...]], backend: str) -> Candidate:
    from eightfold.export.int8.layer_precisions import layer_precisions
    from eightfold.onnx_graph.onnx_files import load_onnx
    from eightfold.runtime.bench.candidates import Candidate, candidate_name

    path = job.path(wanted.path)
    return Candidate(
        name=candidate_name(wanted.curve, backend),
        path=path,
        batch=wanted.batch,
        precision=wanted.precision,
        backend=backend,
        variant=wanted.variant,
        artifact=wanted.id,
        sha256=sha256_of_file(path),
        metrics=metrics[wanted.id],
        layers=layer_precisions(load_onnx(path)),
        size=wanted.size,
    )


def write_run_report(job: Job, _: Path) -> str:
    """Write the HTML report; returns its path."""
    from eightfold.runtime.report.report import write_report

    write_report(job.path(at.REPORT), content_of(job))
    return str(job.path(at.REPORT))


def bundle(job: Job, _: Path) -> str:
    """Write the bundle; returns a summary."""
    from eightfold.export.bundle.write import write_bundle
    from eightfold.export.tensorrt.record import sidecar_path

    engines = [wanted.path for wanted in job.artifacts.engines]
    sidecars = [str(sidecar_path(path)) for path in engines]
    paths = [*job.artifacts.onnx.files, *engines, *sidecars]
    documents = {"plan": "plan.json", "ranges": at.RANGES, "latency": at.LATENCY, "report": at.REPORT}
    files = {path: job.path(path) for path in paths}
    files |= {name: job.path(at.PLAN if role == "plan" else name) for role, name in documents.items()}
    write_bundle(
        job.path(at.BUNDLE),
        name=job.recipe.name,
        task=job.outputs,
        preprocess=job.fed,
        artifacts=artifacts_of(job),
        files=files,
        documents=documents,
        provenance=_provenance(job),
    )
    size = sum(path.stat().st_size for path in job.path(at.BUNDLE).rglob("*") if path.is_file())
    return f"{len(files)} files, {size / 1e6:.0f} MB"


def artifacts_of(job: Job) -> list[Artifact]:
    """The manifest's entries, with the steps and the metric of each."""
    from eightfold.export.bundle.write import engine_artifact, onnx_artifact

    metrics, steps = metrics_of(job), steps_of(job)
    graphs = [
        onnx_artifact(
            job.path(wanted.path),
            id=wanted.id,
            inside=wanted.path,
            variant=wanted.variant,
            precision=wanted.precision,
            target=wanted.target,
            metrics=metrics[wanted.id],
            steps=steps[wanted.id],
        )
        for wanted in job.artifacts.onnx
    ]
    engines = [
        engine_artifact(job.path(wanted.path), id=wanted.id, inside=wanted.path, variant=wanted.variant)
        for wanted in job.artifacts.engines
    ]
    return graphs + engines


def _provenance(job: Job) -> JsonDict:
    """Provenance of the bundle. A new commit is no reason to train again: the steps that it found done are named."""
    earlier = {name: stamp for name, stamp in stamps(job.directory).items() if name != "bundle"}
    return {
        "recipe": job.quoted.model_dump(mode="json"),
        "commits": dict(job.commits),
        "earlier_commits": {name: stamp for name, stamp in earlier.items() if stamp != job.commits},
        "seed": job.recipe.seed,
        "train_images": job.train_images.digest(),
        "test_images": job.test_images.digest(),
    }
