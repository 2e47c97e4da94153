"""`eightfold finetune`."""

from __future__ import annotations

from eightfold.cli.train.options import (
    BatchSize,
    Classes,
    Data,
    Epochs,
    ImageSize,
    Mosaic,
    Network,
    Output,
    PreprocessFile,
    Rate,
    Seed,
    TaskName,
    TrainingArguments,
    Weights,
    train_and_save,
)


def finetune(
    network: Network,
    data: Data,
    output: Output,
    epochs: Epochs = 5,
    batch: BatchSize = 64,
    rate: Rate = 0.01,
    weights: Weights = None,
    classes: Classes = None,
    size: ImageSize = None,
    task: TaskName = "",
    preprocess: PreprocessFile = None,
    mosaic: Mosaic = 0.5,
    seed: Seed = 0,
) -> None:
    """Train a pruned network on labelled images, at a low rate.

    After an interruption, the same command resumes.

    Example: eightfold finetune pruned --data photos --epochs 5 -o tuned
    """
    arguments = TrainingArguments(
        network, data, epochs, batch, rate, weights, classes, size, task, preprocess, mosaic, seed
    )
    train_and_save(arguments, output, "fine-tuning")
