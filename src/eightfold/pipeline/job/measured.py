"""Reads the metrics and recorded steps that earlier steps of a run left."""

from __future__ import annotations

from collections import defaultdict

from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.job import Job
from eightfold.runtime.bundle.manifest import Metric
from eightfold.runtime.bundle.manifest import Step as ManifestStep


def families(job: Job) -> list[str]:
    """Families of graphs whose steps are recorded."""
    decoded = [at.DECODED] if job.recipe.export.decode else []
    return ["baseline", "pruned", *(f"int8-{target}" for target in job.recipe.quantize.targets), *decoded]


def metrics_of(job: Job) -> dict[str, tuple[Metric, ...]]:
    """Artifact id -> its measured metrics, the task's leading one first."""
    return {name: tuple(map(Metric.model_validate, found)) for name, found in job.read(at.METRICS).items()}


def steps_of(job: Job) -> dict[str, list[ManifestStep]]:
    """Artifact id -> the recorded steps that made it."""
    found: dict[str, list[ManifestStep]] = defaultdict(list)
    for family in families(job):
        for artifact, steps in job.read(at.facts_of(family)).items():
            found[artifact] += [ManifestStep.model_validate(step) for step in steps]
    return found
