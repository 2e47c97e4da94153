"""What every step that makes graphs does with them: weights are stored once, and what was found is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eightfold.pipeline import job as at
from eightfold.pipeline.artifacts import Wanted
from eightfold.pipeline.job import Job
from eightfold.runtime.manifest import Step


def share(job: Job, graphs: Sequence[Wanted]) -> None:
    """Store the weights of one curve once, before anything is measured: what is measured is what is shipped."""
    from eightfold.export.weights import share_weights

    share_weights([job.path(wanted.path) for wanted in graphs], Path(graphs[0].weights).name)


def write_facts(job: Job, family: str, steps: Mapping[str, Sequence[Step]]) -> None:
    """Record the steps of each artifact, without their durations: the same work leaves the same file."""
    facts = {name: [step.model_dump(mode="json", exclude={"seconds"}) for step in made] for name, made in steps.items()}
    job.write(at.facts_of(family), facts)
