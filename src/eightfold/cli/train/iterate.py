"""`eightfold iterate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.train.options import TrainingArguments, training_command
from eightfold.compress.train.processes import is_main
from eightfold.extras import installed, require

if TYPE_CHECKING:
    from torch import nn

    from eightfold.compress.train.iterate.options import StepTraining
    from eightfold.pipeline.train_models import TrainingSubject


@training_command(epochs=5, rate=0.01)
def iterate(
    arguments: TrainingArguments,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all steps and the result, OUTPUT/best.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps; those that change no aligned width are merged.")] = 16,
    keep: Annotated[float, typer.Option(help="Share of the original channels at the end.")] = 0.5,
    multiple: Annotated[int, typer.Option(min=1, help="Widths become multiples of this.")] = 8,
    score: Annotated[str, typer.Option(help="Score of channels, from weights.")] = "group_l2",
    max_drop: Annotated[
        float | None, typer.Option(help="Stop where the metric falls by more points (0-100). Default: never.")
    ] = None,
    latency: Annotated[bool, typer.Option(help="Measure the latency of every step on this CPU.")] = True,
) -> None:
    """Prune in many small steps, with training after each. The last step trains twice as long.

    OUTPUT/best holds the last network within --max-drop, OUTPUT/steps.svg the curves. After an interruption, the same
    command resumes after its last step.

    Example: eightfold iterate trained --data photos --steps 16 --keep 0.5 --max-drop 2 -o steps
    """
    require("torch", "train a network")
    from eightfold.compress.surgery.artifacts import save_pruned
    from eightfold.compress.train.iterate.iterate import iterate as prune_in_steps
    from eightfold.compress.train.iterate.options import IterateOptions
    from eightfold.compress.train.iterate.plot import plot_steps
    from eightfold.errors import UsageError
    from eightfold.pipeline.train_models import latency_ms

    options = IterateOptions(
        steps=steps,
        keep_ratio=keep,
        multiple=multiple,
        score=score,
        epochs=(arguments.epochs,),
        rate=(arguments.rate,),
        batch=(arguments.batch,),
        max_drop=None if max_drop is None else max_drop / 100,
    )
    subject = arguments.open()
    if subject.plan.groups:
        raise UsageError(f"{arguments.network} is pruned already", allowed="the network before pruning")
    finetune = _finetuning(subject, arguments, output)
    side = subject.loaded.size
    measures = latency and is_main() and installed("onnxruntime")
    measured = (lambda model: latency_ms(model, side)) if measures else None
    done = prune_in_steps(
        subject.module.eval(), subject.images(1), finetune, subject.measure, output, options=options, latency=measured
    )
    if is_main():
        save_pruned(done.model, done.plan, output / "best", source=subject.record)
        if installed("matplotlib"):
            plot_steps(done.rows, output / "steps.svg", metric=subject.metric)
    print(done.describe())
    print(f"wrote {output / 'best'}")


def _finetuning(
    subject: TrainingSubject, arguments: TrainingArguments, output: Path
) -> Callable[[nn.Module, StepTraining], None]:
    """The training after each step, with a log of its own."""
    from eightfold.compress.train.log import log_beside
    from eightfold.recipe_sections import TrainSection

    def finetune(model: nn.Module, training: StepTraining) -> None:
        section = TrainSection(
            epochs=training.epochs,
            batch=training.batch,
            learning_rate=training.rate,
            mosaic=arguments.mosaic,
        )
        what = f"step {training.step}/{training.steps}"
        log = log_beside(output / f"step-{training.step}", arguments.log)
        subject.train(model, section, training.checkpoint, what, log=log)

    return finetune
