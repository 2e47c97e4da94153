"""Options that the training commands share, and the order of their work: open, train, measure, save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eightfold.cli.network import SOURCE_HELP
from eightfold.cli.options import image_size, task_named
from eightfold.extras import require

if TYPE_CHECKING:
    from eightfold.compress.train.hooks import Hook
    from eightfold.pipeline.train_models import TrainingSubject
    from eightfold.recipe_sections import TrainSection

Network = Annotated[str, typer.Argument(help=SOURCE_HELP)]
Data = Annotated[
    str,
    typer.Option(help="Labelled: train/ and test/, COCO, VOC, YOLO .yaml or Darknet .data."),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the trained network.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per step.")]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
Weights = Annotated[Path | None, typer.Option(help="Weights to start from (.safetensors, .pt).")]
Classes = Annotated[int | None, typer.Option(help="Number of outputs. Default: the classes of the images.")]
ImageSize = Annotated[str | None, typer.Option(help="Image size: SIDE or HEIGHTxWIDTH. Default: the source's own.")]
TaskName = Annotated[str, typer.Option(help="Decoder of the outputs, or a JSON file. Default: as the source says.")]
PreprocessFile = Annotated[Path | None, typer.Option(help="JSON file of a Preprocess. Default: the source's own.")]
Mosaic = Annotated[float, typer.Option(min=0, max=1, help="To detect: share of images made of four.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]


@dataclass(frozen=True)
class TrainingArguments:
    """The shared options of a command."""

    network: str
    data: str
    epochs: int
    batch: int
    rate: float
    weights: Path | None = None
    classes: int | None = None
    size: str | None = None
    task: str = ""
    preprocess: Path | None = None
    mosaic: float = 0.5
    seed: int = 0

    @property
    def section(self) -> TrainSection:
        """Epochs, batch and rate as tasks take them."""
        from eightfold.recipe_sections import TrainSection

        return TrainSection(epochs=self.epochs, batch=self.batch, learning_rate=self.rate, mosaic=self.mosaic)

    def open(self) -> TrainingSubject:
        """The network and its images."""
        require("torch", "train a network")
        from eightfold.calib.images.preprocess import Preprocess
        from eightfold.pipeline.train_models import TrainedNetworkOptions, open_training

        options = TrainedNetworkOptions(
            weights=self.weights,
            num_classes=self.classes,
            size=None if self.size is None else image_size(self.size),
            preprocess=None if self.preprocess is None else Preprocess.load(self.preprocess),
            task=task_named(self.task) if self.task else None,
            seed=self.seed,
        )
        return open_training(self.network, self.data, options)


def checkpoint_beside(output: Path) -> Path:
    """The file that holds the state of an interrupted training."""
    beside = output.absolute()
    return beside.with_name(f".{beside.name}.train.safetensors")


def train_and_save(
    arguments: TrainingArguments,
    output: Path,
    what: str,
    hooks: Callable[[TrainingSubject], Sequence[Hook]] = lambda subject: (),
) -> Any:
    """Train with hooks, print the metric before and after, write the folder. Returns the subject."""
    require("torch", "train a network")
    from eightfold.compress.surgery.artifacts import require_pruned_output

    require_pruned_output(output)
    subject = arguments.open()
    before = subject.measure(subject.module)
    checkpoint = checkpoint_beside(output)
    loss = subject.train(subject.module, arguments.section, checkpoint, what, hooks(subject))
    after = subject.measure(subject.module)
    subject.save(subject.module, output)
    checkpoint.unlink(missing_ok=True)
    print(f"{subject.metric} {before:.1%} before, {after:.1%} after {arguments.epochs} epochs; last loss {loss:.4g}")
    print(f"wrote {output}")
    return subject
