"""`eightfold finetune`."""

from __future__ import annotations

from eightfold.cli.train.options import Output, TrainingArguments, train_and_save, training_command


@training_command(epochs=5, rate=0.01)
def finetune(arguments: TrainingArguments, output: Output) -> None:
    """Train a pruned network on labelled images, at a low rate.

    After an interruption, the same command resumes.

    Example: eightfold finetune pruned --data photos --epochs 5 -o tuned
    """
    train_and_save(arguments, output, "fine-tuning")
