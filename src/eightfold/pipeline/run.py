"""`run`: a recipe carried out from data to bundle, doing only what is not done yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eightfold.errors import UsageError
from eightfold.export.commits import commits
from eightfold.files import PathLike
from eightfold.pipeline import job as at
from eightfold.pipeline.before import check_before
from eightfold.pipeline.export_steps import export_steps
from eightfold.pipeline.job import Job
from eightfold.pipeline.measure_steps import measure_steps
from eightfold.pipeline.runner import Listener, StepResult, run_steps
from eightfold.pipeline.train_steps import train_steps
from eightfold.recipe import Recipe, read_recipe


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

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
    def did_nothing(self) -> bool:
        return all(step.skipped for step in self.steps)


def run(recipe: Recipe | PathLike, *, output: PathLike | None = None, listener: Listener = lambda _: None) -> RunResult:
    """Carry out a recipe: data, training, pruning, export, calibration, INT8, engines, measurement, bundle.

    Steps whose inputs and settings did not change are skipped. A run that was interrupted, or killed at any point, goes
    on where it was when it is called again, and ends with the same weights and graphs.

    Args:
        recipe: a Recipe, or the path of a YAML file.
        output: the run directory; the recipe's `output` by default.
        listener: is told the name of each step that starts and the result of each that ends.

    Raises:
        RecipeError: the recipe is wrong.
        UsageError: the run directory holds other things.
        EightfoldError: a step failed; what was there before it is left as it was.
    """
    project = Path.cwd() if isinstance(recipe, Recipe) else Path(recipe).parent
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    job = Job(recipe, Path(output or recipe.output), commits(project))
    job.task.check(recipe)
    check_before(recipe, job.directory)
    _check_directory(job.directory)
    steps = [*train_steps(job), *export_steps(job), *measure_steps(job)]
    results = run_steps(job.directory, steps, listener, job.commits)
    return RunResult(job.path(at.BUNDLE), job.path(at.REPORT), job, tuple(results))


def _check_directory(directory: Path) -> None:
    """Steps replace folders such as `data` whole, so a run must not start in a directory of other origin."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"the run directory {directory} is a file", allowed="another --output")
    names = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
    if names and names.isdisjoint({"steps", ".lock"}):
        raise UsageError(
            f"the run directory {directory} holds other things, such as {min(names)}",
            allowed="a new or empty directory, or that of an earlier run",
            remedy="choose another --output",
        )
