"""Shares code of the steps that make graphs: weights are stored once, findings are recorded, and the inputs that they
depend on are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.runtime.bundle.manifest import Step
from eightfold.versions import runtime_versions


def share(job: Job, graphs: Sequence[ArtifactSpec]) -> None:
    """Store the weights of one network once, before anything is measured: what is measured is what is shipped."""
    from eightfold.onnx_graph.weights import share_weights

    share_weights([job.path(wanted.path) for wanted in graphs], Path(graphs[0].weights).name)


def write_facts(job: Job, family: str, steps: Mapping[str, Sequence[Step]]) -> None:
    """Record the steps of each artifact, without their durations: the same work leaves the same file."""
    facts = {name: [step.model_dump(mode="json", exclude={"seconds"}) for step in made] for name, made in steps.items()}
    job.write(at.facts_of(family), facts)


def library_versions() -> dict[str, str]:
    """The versions of the libraries whose output may change with them."""
    return {name: version for name, version in runtime_versions().items() if version}
