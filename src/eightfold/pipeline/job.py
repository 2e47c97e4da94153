"""A job: a recipe and the directory it works in, with the names of everything in there and how to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eightfold.files import write_text
from eightfold.recipe import Recipe, TaskSection

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eightfold.calib.images.image_set import ImageSet
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.pipeline.artifacts import ArtifactSpec
    from eightfold.runtime.bundle.manifest import Task
    from eightfold.tasks.base import VisionTask

# Folders and files of a run directory.
DATA = "data"
BASELINE = "baseline/weights.safetensors"
BASELINE_FACTS = "baseline/facts.json"
PLAN = "plan/plan.json"
WIDTHS = "plan/widths.json"
PRUNED = "pruned"
PRUNED_FACTS = "pruned.json"
RANGES = "ranges.json"
EQUALIZED = "onnx/equalized.json"
METRICS = "metrics.json"
EVIDENCE = "evidence.json"  # the leading metric, image by image
ENGINES = "engines"
TIMING_CACHE = "timing.cache"
DECODED = "decoded"  # a family of graphs
LATENCY = "latency.json"
REPORT = "report.html"
BUNDLE = "bundle"


def facts_of(what: str) -> str:
    """Path of the recorded steps of a family of graphs, by artifact id."""
    return f"onnx/{what.replace(':', '-')}.json"


def search_of(target: str) -> str:
    """Path of the plot of the trade-off that `quantize.max_drop` made; the table has the same name and .txt."""
    return f"onnx/search-{target.replace(':', '-')}.svg"


@dataclass(frozen=True)
class Job:
    """A recipe in its run directory.

    Attributes:
        commits: of eightfold and of the project that the recipe lies in, as they are now; see `export.commits`.
    """

    recipe: Recipe
    directory: Path
    commits: Mapping[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Path of a file of the run."""
        return self.directory / name

    def read(self, name: str) -> Any:
        """Content of a JSON file of the run."""
        return json.loads(self.path(name).read_text())

    def write(self, name: str, data: Any) -> None:
        """Write a JSON file of the run."""
        write_text(self.path(name), json.dumps(data, indent=1, sort_keys=True) + "\n")

    @cached_property
    def task(self) -> VisionTask:
        """The task of the recipe's network."""
        from eightfold.tasks.kinds import task_of
        from eightfold.zoo import models

        known = models.task_of_source(self.recipe.model.source, self.image_size)
        return task_of(completed(self.recipe.task, known))

    @cached_property
    def train_images(self) -> ImageSet:
        """Training images with labels."""
        return self.task.labelled_images(self.path(DATA) / "train")

    @cached_property
    def test_images(self) -> ImageSet:
        """Test images with labels."""
        return self.task.labelled_images(self.path(DATA) / "test")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train_images.classes

    @property
    def raw_outputs(self) -> Task:
        """The task that reads the outputs of torch modules and their graphs."""
        return self.task.outputs_mean(self.classes)

    @property
    def outputs(self) -> Task:
        """The task that reads the outputs of the shipped graphs."""
        return self.task.outputs_mean(self.classes, decoded=self.recipe.export.decode)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, where no other is asked for."""
        return self.recipe.preprocess.height, self.recipe.preprocess.width

    @cached_property
    def fed(self) -> Preprocess:
        """The preprocessing of the shipped graphs: torch modules take `recipe.preprocess` in any case."""
        from eightfold.export.in_graph.in_graph import pixels_for

        plain = self.recipe.preprocess
        return pixels_for(plain) if self.recipe.export.preprocess == "in-graph" else plain

    def fed_to(self, wanted: ArtifactSpec) -> Preprocess:
        """The preprocessing of one of these graphs."""
        return self.fed if wanted.size is None else self.fed.at_size(*wanted.size)

    def first_test_images(self, count: int, preprocess: Preprocess) -> NDArray[Any]:
        """Test images of all classes as model input (count, ...), for comparing artifacts with each other; repeated
        where there are fewer."""
        from eightfold.tasks.inputs import tensors

        images = self.test_images.sample(count, seed=self.recipe.seed)
        rows = tensors(images, np.arange(len(images)), preprocess)
        return np.resize(rows, (count, *rows.shape[1:]))

    def example_inputs(self) -> tuple[torch.Tensor]:
        """One random image batch, float32 (1, channels, height, width)."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return (torch.rand(1, self.recipe.preprocess.channels, *self.image_size, generator=generator),)

    def new_model(self) -> nn.Module:
        """The architecture with the random weights that the recipe's seed gives."""
        from eightfold.zoo.models import build_model

        return build_model(self.recipe.model.source, num_classes=len(self.classes), seed=self.recipe.seed)

    def baseline_model(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        from eightfold.zoo.weights import load_weights

        model = self.new_model()
        load_weights(model, self.path(BASELINE))
        return model.eval()

    def pruned_model(self) -> nn.Module:
        """The pruned network, in evaluation mode."""
        from eightfold.compress.surgery.artifacts import load_pruned

        return load_pruned(self.new_model, self.path(PRUNED)).eval()

    def model(self, variant: str) -> nn.Module:
        """The network of a variant: "baseline" or "pruned"."""
        return self.baseline_model() if variant == "baseline" else self.pruned_model()


def completed(section: TaskSection, known: Task) -> TaskSection:
    """A recipe's task section, with the decoder and the options that its network is known to need."""
    if known.kind != section.kind or section.decode not in ("", known.decode):
        return section
    return section.model_copy(update={"decode": known.decode, "options": {**known.options, **section.options}})
