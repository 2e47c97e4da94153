"""`eightfold train`."""

from __future__ import annotations

from eightfold.cli.train.options import Output, TrainingArguments, train_and_save, training_command


@training_command(epochs=10, rate=0.05)
def train(arguments: TrainingArguments, output: Output) -> None:
    """Train a network on labelled images.

    After an interruption, the same command resumes.

    Example: eightfold train resnet18 --data photos --size 64 --epochs 10 -o trained
    """
    train_and_save(arguments, output, "training")
