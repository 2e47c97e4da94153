"""Options that the training commands share, and the order of their work: open, train, measure, save."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from eightfold.cli.network import Source, SourcePreprocess, SourceSize
from eightfold.cli.options import Seed, image_size, task_named
from eightfold.compress.train.processes import (
    Processes,
    command_again,
    end_with_parent,
    is_main,
    is_worker,
    quiet_beside_main,
    run_workers,
)
from eightfold.errors import UsageError
from eightfold.extras import require

if TYPE_CHECKING:
    from eightfold.compress.train.hooks import Hook
    from eightfold.pipeline.train_models import TrainingSubject
    from eightfold.recipe_sections import TrainSection

DEVICES = ("cpu", "cuda", "auto")
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
TaskName = Annotated[str, typer.Option(help="Decoder of the outputs, or a JSON file. Default: as the source says.")]
Mosaic = Annotated[float, typer.Option(min=0, max=1, help="To detect: share of images made of four.")]
NumberOfProcesses = Annotated[
    int | None, typer.Option("--nproc", min=1, help="Processes that train together. Default: 1, or one for a GPU.")
]
LogName = Annotated[str, typer.Option(help="csv, or tensorboard beside it: OUTPUT.log.csv, OUTPUT.tensorboard.")]
DeviceNames = Annotated[str, typer.Option("--devices", help="cpu, cuda, auto, or numbers of GPUs: 0,1.")]


@dataclass(frozen=True, kw_only=True)
class TrainingArguments:
    """The options that every command has that trains, in the order of its help."""

    network: Source
    data: Data
    epochs: Epochs
    batch: BatchSize = 64
    rate: Rate
    weights: Weights = None
    classes: Classes = None
    size: SourceSize = None
    task: TaskName = ""
    preprocess: SourcePreprocess = None
    mosaic: Mosaic = 0.5
    seed: Seed = 0
    devices: DeviceNames = "cpu"
    nproc: NumberOfProcesses = None
    log: LogName = "csv"

    @property
    def device(self) -> str:
        """Device of each process: "cpu", "cuda" or "auto"."""
        return self.devices if self.devices in DEVICES else "cuda"

    @property
    def processes(self) -> Processes:
        """The processes that train together. Raises UsageError."""
        if self.devices in DEVICES:
            return Processes(self.nproc or 1)
        if not all(each.isdigit() for each in self.devices.split(",")):
            raise UsageError(f"--devices {self.devices}", allowed="cpu, cuda, auto, or numbers of GPUs such as 0,1")
        gpus = tuple(map(int, self.devices.split(",")))
        return Processes(self.nproc or len(gpus), gpus)

    @property
    def section(self) -> TrainSection:
        """Epochs, batch and rate as tasks take them."""
        from eightfold.recipe_sections import TrainSection

        return TrainSection(epochs=self.epochs, batch=self.batch, learning_rate=self.rate, mosaic=self.mosaic)

    def open(self) -> TrainingSubject:
        """The network and its images. Where several processes train, they meet here."""
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
            device=self.device,
        )
        if is_worker():
            from eightfold.compress.train.devices import Devices, as_device

            Devices(as_device(self.device), "off")
        return open_training(self.network, self.data, options)


def training_command(*, epochs: int, rate: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `TrainingArguments`, which it takes as its first argument.

    Its own arguments stand behind the network and the images in its help, its own options before those that are shared.

    Args:
        epochs, rate: their defaults.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()
        own = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        shared = _shared_options({"epochs": epochs, "rate": rate})
        required, optional = (
            [each for each in shared if (each.default is each.empty) == is_one] for is_one in (True, False)
        )
        signature = inspect.Signature([*required, *own, *optional])

        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            arguments = TrainingArguments(**{each.name: given.pop(each.name) for each in shared})
            in_processes(lambda: command(arguments, **given), arguments)

        # What typer reads options from.
        vars(run)["__signature__"] = signature
        run.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        return run

    return decorate


def in_processes(work: Callable[[], None], arguments: TrainingArguments) -> None:
    """Do the work here, or start this command again in several processes and wait for them."""
    processes = arguments.processes
    if is_worker():
        end_with_parent()
        with quiet_beside_main():
            work()
    elif processes.count > 1:
        if processes.count > arguments.batch:
            raise UsageError(
                f"--nproc {processes.count} with --batch {arguments.batch}", allowed="an image for each process"
            )
        run_workers(command_again(), processes)
    else:
        work()


def _shared_options(defaults: dict[str, Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(TrainingArguments, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=defaults.get(each.name, inspect.Parameter.empty if each.default is MISSING else each.default),
            annotation=hints[each.name],
        )
        for each in fields(TrainingArguments)
    ]


def checkpoint_beside(output: Path) -> Path:
    """The file that holds the state of an interrupted training."""
    beside = output.absolute()
    return beside.with_name(f".{beside.name}.train.safetensors")


def train_and_save(
    arguments: TrainingArguments,
    output: Path,
    what: str,
    hooks: Callable[[TrainingSubject], Sequence[Hook]] = lambda subject: (),
) -> TrainingSubject:
    """Train with hooks, print the metric before and after, write the folder. Returns the subject."""
    require("torch", "train a network")
    from eightfold.compress.surgery.artifacts import require_pruned_output
    from eightfold.compress.train.log import log_beside

    require_pruned_output(output)
    log = log_beside(output, arguments.log)
    subject = arguments.open()
    before = subject.measure(subject.module)
    checkpoint = checkpoint_beside(output)
    loss = subject.train(subject.module, arguments.section, checkpoint, what, hooks(subject), log)
    after = subject.measure(subject.module)
    if is_main():
        subject.save(subject.module, output)
        checkpoint.unlink(missing_ok=True)
    print(f"{subject.metric} {before:.1%} before, {after:.1%} after {arguments.epochs} epochs; last loss {loss:.4g}")
    print(f"wrote {output}")
    return subject
