"""`run`: a recipe carried out from data to bundle, doing only what is not done yet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from eightfold.errors import UsageError
from eightfold.export.bundle.commits import commits
from eightfold.files import PathLike
from eightfold.json_types import JsonDict
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.dry_run import StepPreview, foresee
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.recipe_paths import find_code, require_found
from eightfold.pipeline.job.runner import Listener, PipelineStep, StepResult, run_steps
from eightfold.pipeline.preflight import check_before
from eightfold.pipeline.report.content import content_of
from eightfold.pipeline.steps.export import export_steps
from eightfold.pipeline.steps.measure import measure_steps
from eightfold.pipeline.steps.train import train_steps
from eightfold.recipe import Recipe, read_recipe, with_limits
from eightfold.runtime.report.report_content import Check


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        bundle: the bundle's directory.
        report: the HTML report.
        steps: every step with what it said, and whether it was skipped.
    """

    bundle: Path
    report: Path
    job: Job
    steps: tuple[StepResult, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The promises that do not hold, unless the recipe allows that (`limits.allow_failed`)."""
        if self.job.recipe.limits.allow_failed:
            return ()
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every promise and whether it holds."""
        return content_of(self.job).checks

    @property
    def did_nothing(self) -> bool:
        return all(step.skipped for step in self.steps)

    def to_dict(self) -> JsonDict:
        """The output of `eightfold run --json`: paths, the headline numbers, the promises that hold, and every step."""
        content = content_of(self.job)
        return {
            "bundle": str(self.bundle),
            "report": str(self.report),
            "cards": [card.model_dump() for card in content.cards],
            "checks": [check.model_dump() for check in content.checks],
            "steps": [dataclasses.asdict(step) for step in self.steps],
        }


def run(
    recipe: Recipe | PathLike,
    *,
    output: PathLike | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    listener: Listener = lambda _: None,
) -> RunResult:
    """Carry out a recipe: data, training, pruning, export, calibration, INT8, engines, measurement, bundle.

    Steps whose inputs and settings did not change are skipped. A run that was interrupted, or killed at any point, goes
    on where it was when it is called again, and ends with the same weights and graphs.

    Args:
        recipe: a Recipe, or the path of a YAML file.
        output: the run directory; the recipe's `output` by default.
        max_drop: points of the leading metric that may be lost, in place of the recipe's `limits.max_drop`.
        min_speedup: in place of the recipe's `limits.min_speedup`.
        listener: is told the name of each step that starts and the result of each that ends.

    Raises:
        RecipeError: the recipe is wrong.
        UsageError: the run directory holds other things.
        EightfoldError: a step failed; what was there before it is left as it was.
    """
    job = _job(recipe, output, max_drop=max_drop, min_speedup=min_speedup)
    results = run_steps(job.directory, _steps(job), listener, job.commits)
    return RunResult(job.path(at.BUNDLE), job.path(at.REPORT), job, tuple(results))


def preview_run(
    recipe: Recipe | PathLike,
    *,
    output: PathLike | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
) -> tuple[StepPreview, ...]:
    """Predicts `run`, step by step: steps that are done, steps that would run, and the reason for each. Nothing is
    written.

    A step that reads what another one would make may run: where that comes out as it was, there is nothing to do.
    Takes the same arguments, and raises the same errors, before the first step as `run` does.
    """
    job = _job(recipe, output, max_drop=max_drop, min_speedup=min_speedup)
    return foresee(job.directory, _steps(job))


def _job(recipe: Recipe | PathLike, output: PathLike | None, **limits: float | None) -> Job:
    """The recipe in its run directory, where neither is at fault."""
    project = Path.cwd() if isinstance(recipe, Recipe) else Path(recipe).parent
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
        require_found(recipe, project)
    recipe = with_limits(recipe, **limits)
    find_code(recipe)
    job = Job(recipe, Path(output or recipe.output), commits(project))
    job.task.check(recipe)
    check_before(recipe, job.directory)
    _check_directory(job.directory)
    return job


def _steps(job: Job) -> list[PipelineStep]:
    return [*train_steps(job), *export_steps(job), *measure_steps(job)]


def _check_directory(directory: Path) -> None:
    """Refuses a directory that is not of a run: steps replace folders such as `data`."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"the run directory {directory} is a file", allowed="another --output")
    names = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
    if names and names.isdisjoint({"steps", ".lock"}):
        raise UsageError(
            f"the run directory {directory} holds other things, such as {min(names)}",
            allowed="a new or empty directory, or that of an earlier run",
            remedy="choose another --output",
        )
