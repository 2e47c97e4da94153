"""Networks that train on labelled images; shared by the commands `train`, `sparsify`, `finetune`, `distill`, `qat`,
`iterate` and `sensitivity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.surgery.source_record import SOURCE, SourceRecord
from eightfold.errors import ModelError, UsageError
from eightfold.recipe_sections import TaskSection, TrainSection
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.tasks.base import Training, VisionTask
from eightfold.tasks.boxes import open_part
from eightfold.tasks.classify import labelled_images
from eightfold.tasks.dense.masked_images import MASKS
from eightfold.tasks.dense.matted_images import ALPHAS
from eightfold.tasks.kinds import task_of
from eightfold.tasks.networks import module_network
from eightfold.tasks.parts import require_parts, test_folder
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.registry import load_source, source_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.train.hooks import Hook
    from eightfold.compress.train.log import Log

EVALUATION_BATCH = 16
DENSE = {"segment": MASKS, "matte": ALPHAS}  # task -> folder beside the images


@dataclass(frozen=True)
class TrainedNetworkOptions:
    """Properties of a network that trains, beside its source.

    Attributes:
        weights, num_classes, size: of a named network.
        preprocess: how an image becomes its input; the source's own by default.
        task: what its outputs mean; the source's own by default.
        seed: of random weights, order and augmentation.
        device: "cpu", "cuda" or "auto": where it trains.
    """

    weights: Path | None = None
    num_classes: int | None = None
    size: Size | None = None
    preprocess: Preprocess | None = None
    task: Task | None = None
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class TrainingSubject:
    """A network with its task and labelled images."""

    loaded: LoadedModel
    task: VisionTask
    train_images: ImageSet
    test_images: ImageSet
    preprocess: Preprocess
    seed: int
    device: str = "cpu"

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.loaded.module

    @property
    def metric(self) -> str:
        """Name of the leading metric."""
        return self.task.metrics[0]

    def measure(self, model: nn.Module) -> float:
        """The leading metric on the test images, in [0, 1]."""
        task = self.task.outputs_mean(self.test_images.classes)
        network = module_network(model, self.preprocess, task, batch=EVALUATION_BATCH)
        return self.task.evaluate(network, self.test_images)[self.metric]

    def train(
        self,
        model: nn.Module,
        section: TrainSection,
        checkpoint: Path,
        what: str,
        hooks: Sequence[Hook] = (),
        log: Log | None = None,
    ) -> float:
        """Train `model` in place; returns the last loss. A killed run goes on at `checkpoint`, which the caller
        removes."""
        training = Training(
            self.train_images, self.preprocess, section, self.seed, checkpoint, what, hooks, self.device, log
        )
        return self.task.train(model, training)

    def images(self, count: int) -> torch.Tensor:
        """Model-ready training images [count, channels, height, width]."""
        import numpy as np
        import torch

        from eightfold.tasks.inputs import tensors

        chosen = self.train_images.sample(min(count, len(self.train_images)), seed=self.seed)
        return torch.from_numpy(tensors(chosen, np.arange(len(chosen)), self.preprocess))

    @cached_property
    def plan(self) -> PrunePlan:
        """The plan by which the network was pruned before; an empty one where nothing was."""
        from eightfold.compress.plan.plan import PrunePlan
        from eightfold.compress.surgery.artifacts import PLAN
        from eightfold.compress.trace.trace import trace

        stored = Path(self.loaded.source) / PLAN
        if stored.is_file():
            return PrunePlan.load(stored)
        return PrunePlan.from_graph(trace(self.module, self.loaded.example_inputs()), {})

    @property
    def record(self) -> SourceRecord:
        """The source of the network, for the folder that it is saved in."""
        stored = Path(self.loaded.source) / SOURCE
        return SourceRecord.load(stored) if stored.is_file() else self.loaded.record()

    def save(self, model: nn.Module, output: Path) -> None:
        """Write the trained network as a folder that every command takes."""
        from eightfold.compress.surgery.artifacts import save_pruned

        save_pruned(model, self.plan, output, source=self.record)


def open_training(network: str, data: str, options: TrainedNetworkOptions | None = None) -> TrainingSubject:
    """A network, and the images that it trains on.

    Args:
        network: any model source but an ONNX file.
        data: to classify, a folder with train/LABEL/* and test/LABEL/*; to detect, a folder with COCO annotations, one
            of Pascal VOC, a YOLO .yaml or a Darknet .data; to segment, images/ and masks/ in train/ and test/; for
            mattes, images/ and alphas/.

    Raises:
        ImageError: images or labels that cannot be read or do not fit.
        ModelError: an ONNX file, or a network whose task cannot be trained.
    """
    options = options or TrainedNetworkOptions()
    if network.endswith(".onnx"):
        raise ModelError(
            f"{network} has no training code", allowed="a torch network", remedy="`eightfold recover` takes .onnx files"
        )
    require_parts(Path(data))
    folder = Path(network).is_dir()
    dense = _dense_kind(Path(data))
    if dense:
        task = task_of(TaskSection(kind=dense, options=options.task.options if options.task is not None else {}))
        train, test = task.labelled_images(Path(data) / "train"), task.labelled_images(test_folder(Path(data)))
        loaded = load_trained(network, options, None if folder or not train.classes else len(train.classes))
        section = task.section
    elif options.task is None and _classifies(Path(data)):
        train, test = labelled_images(Path(data) / "train"), labelled_images(test_folder(Path(data)))
        loaded = load_trained(network, options, None if folder else len(train.classes))
        section = TaskSection(kind="classify")
    else:
        labels = options.task.labels if options.task is not None else ()
        train = open_part(Path(data), "train", None, labels)
        test = open_part(Path(data), "test", None, train.classes)
        loaded = load_trained(network, options, None if folder else len(train.classes))
        found = options.task or loaded.task
        if found.kind == "tensors":
            raise UsageError(
                f"{network} does not say what its outputs mean",
                allowed="--task with a decoder: yolo-dfl, yolo-anchors, or a JSON file with its options",
            )
        section = TaskSection(kind=found.kind, decode=found.decode, options=found.options, labels=tuple(found.labels))
    preprocess = options.preprocess or loaded.preprocess
    ready = preprocess.at_size(*loaded.size)
    return TrainingSubject(loaded, task_of(section), train, test, ready, options.seed, options.device)


def _dense_kind(data: Path) -> str:
    """The task of a folder whose parts hold images/ with masks/ or alphas/; "" for others."""
    found = [kind for kind, name in DENSE.items() if (data / "train" / name).is_dir()]
    return found[0] if found and (data / "train" / "images").is_dir() else ""


def _classifies(data: Path) -> bool:
    return data.is_dir() and any(data.glob("train/*/*.*")) and not any(data.glob("train/*.json"))


def load_trained(network: str, options: TrainedNetworkOptions, classes: int | None) -> LoadedModel:
    """A torch network from any source; `classes` is for those that are built with any number. Raises ModelError."""
    takes = classes is not None and source_of(network).takes_weights(network)
    found = load_source(
        network,
        SourceOptions(
            num_classes=options.num_classes or (classes if takes else None),
            size=options.size,
            weights=options.weights,
            seed=options.seed,
        ),
    )
    if found.is_file:
        raise ModelError(f"{network} holds an ONNX file, which has no training code", allowed="a torch network")
    return found


def latency_ms(model: nn.Module, size: Size, *, seconds: float = 0.3, channels: int = 3) -> float:
    """Median time of one image in onnxruntime on this CPU, FP32, one thread."""
    from eightfold.export.torch.onnx_export import export_onnx
    from eightfold.pipeline.bench_models import bench
    from eightfold.scratch import scratch_folder

    with scratch_folder() as folder:
        path = export_onnx(model, Path(folder) / "model.onnx", batch=1, image_size=size, channels=channels)
        table = bench(path, backends=["onnxruntime"], seconds=seconds, threads=1)
        median: Any = table.rows[0].timing.p50_ms
    return float(median) if median is not None else float("nan")
