"""`eightfold train`."""

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


def train(
    network: Network,
    data: Data,
    output: Output,
    epochs: Epochs = 10,
    batch: BatchSize = 64,
    rate: Rate = 0.05,
    weights: Weights = None,
    classes: Classes = None,
    size: ImageSize = None,
    task: TaskName = "",
    preprocess: PreprocessFile = None,
    mosaic: Mosaic = 0.5,
    seed: Seed = 0,
) -> None:
    """Train a network on labelled images.

    After an interruption, the same command resumes.

    Example: eightfold train resnet18 --data photos --size 64 --epochs 10 -o trained
    """
    arguments = TrainingArguments(
        network, data, epochs, batch, rate, weights, classes, size, task, preprocess, mosaic, seed
    )
    train_and_save(arguments, output, "training")
