"""`eightfold distill`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.options import image_size
from eightfold.cli.train.options import Output, TrainingArguments, train_and_save, training_command
from eightfold.errors import UsageError

if TYPE_CHECKING:
    from eightfold.compress.train.hooks import Hook
    from eightfold.pipeline.train_models import TrainingSubject


@training_command(epochs=10, rate=0.02)
def distill(
    arguments: TrainingArguments,
    output: Output,
    teacher: Annotated[str, typer.Option(help="Network to learn from; see `eightfold sources`.")],
    loss: Annotated[
        list[str] | None,
        typer.Option(help="logits, cwd, attention, features, mgd, detection-N=WEIGHT."),
    ] = None,
    pair: Annotated[
        list[str] | None, typer.Option(help="STUDENT=TEACHER modules to compare by features; repeat for more.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of softmaxes.")] = 4.0,
    teacher_weights: Annotated[Path | None, typer.Option(help="Weights of the teacher.")] = None,
) -> None:
    """Train a network on labelled images and a teacher.

    Losses: logits=1 by default; detection-1 to detection-5 are for detectors with anchors. The teacher may be the
    network before pruning, before or after sparse training. After an interruption, the same command resumes.

    Example: eightfold distill pruned --teacher trained --data photos --loss logits=1 --loss cwd=0.5 -o distilled
    """

    def hooks(subject: TrainingSubject) -> Sequence[Hook]:
        from eightfold.pipeline.train_models import TrainedNetworkOptions, load_trained
        from eightfold.tasks.distilling import distillation_hooks

        weights, pairs, classes = _weights(loss or ["logits=1"]), _pairs(pair or []), subject.train_images.classes
        found = TrainedNetworkOptions(
            weights=teacher_weights,
            num_classes=arguments.classes,
            size=subject.loaded.size if arguments.size is None else image_size(arguments.size),
            seed=arguments.seed,
        )
        whole = load_trained(teacher, found, len(subject.train_images.classes))
        return distillation_hooks(
            subject.task,
            subject.module,
            whole.module.eval(),
            weights,
            subject.images(2),
            tuple(classes),
            pairs=pairs,
            temperature=temperature,
        )

    train_and_save(arguments, output, "distilling", hooks)


def _weights(texts: Sequence[str]) -> dict[str, float]:
    """'LOSS=WEIGHT' -> loss: weight."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, weight = text.partition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            raise UsageError(f"--loss {text}", allowed="LOSS=WEIGHT, e.g. logits=1") from None
    return found


def _pairs(texts: Sequence[str]) -> dict[str, str] | None:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if not all(pairs.values()):
        raise UsageError(f"--pair {' --pair '.join(texts)}", allowed="STUDENT_MODULE=TEACHER_MODULE")
    return pairs or None
