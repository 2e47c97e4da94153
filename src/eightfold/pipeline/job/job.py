"""A job: a recipe and the directory it works in, and how to read what is in there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.files import write_text
from eightfold.json_types import Json
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import ArtifactSpec, RunArtifacts
from eightfold.recipe import Recipe
from eightfold.recipe_sections import TaskSection

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.pipeline.job.networks import RunNetworks
    from eightfold.runtime.bundle.manifest import Task
    from eightfold.tasks.base import VisionTask


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

    def write(self, name: str, data: Json) -> None:
        """Write a JSON file of the run."""
        write_text(self.path(name), json.dumps(data, indent=1, sort_keys=True) + "\n")

    @cached_property
    def artifacts(self) -> RunArtifacts:
        """The graphs and engines that the recipe asks for."""
        return RunArtifacts.of(self.recipe)

    @cached_property
    def quoted(self) -> Recipe:
        """The recipe as reports and bundles quote it: files by their names."""
        from eightfold.pipeline.job.recipe_paths import without_folders

        return without_folders(self.recipe)

    @cached_property
    def task(self) -> VisionTask:
        from eightfold.tasks.kinds import agreement_of, task_of
        from eightfold.zoo.sources.registry import source_of

        source = self.recipe.model.source
        known = source_of(source).task(source, self.image_size)
        section = completed(self.recipe.task, known, labelled=not self.by_agreement)
        return agreement_of(section) if self.by_agreement else task_of(section)

    @property
    def unlabelled(self) -> bool:
        """True if the images to calibrate on have no labels."""
        from eightfold.tasks.photos import is_unlabelled
        from eightfold.zoo.datasets.folders import SHIPPED

        return self.recipe.data.source not in SHIPPED and is_unlabelled(self.recipe.data.source)

    @property
    def by_agreement(self) -> bool:
        """True if no image has labels, so that the original's answers are the reference."""
        return self.unlabelled and self.recipe.data.labelled is None

    @cached_property
    def train_images(self) -> ImageSet:
        folder = self.path(at.DATA) / "train"
        if self.unlabelled and not self.by_agreement:
            return ImageSet(open_images(folder / "images").items, None, self.test_images.classes)
        return self.task.labelled_images(folder)

    @cached_property
    def test_images(self) -> ImageSet:
        images = self.task.labelled_images(self.path(at.DATA) / "test")
        if self.by_agreement and self.path(at.ANSWERS).is_file():
            from eightfold.tasks.answers import with_answers

            return with_answers(images, self.path(at.ANSWERS))
        return images

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

    def first_test_images(self, count: int, preprocess: Preprocess) -> Array:
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

    def model_inputs(self) -> tuple[torch.Tensor, ...]:
        """One random image batch, in the batch size and layout that an ONNX file fixes."""
        return self.networks.example_inputs()

    @cached_property
    def networks(self) -> RunNetworks:
        """The networks of the run, as torch modules or ONNX files; see `pipeline/job/networks.py`."""
        from eightfold.pipeline.job.networks import networks_of

        return networks_of(self)

    def baseline_model(self) -> nn.Module:
        """The network before pruning, in evaluation mode."""
        return self.networks.module("baseline")


def completed(section: TaskSection, known: Task, *, labelled: bool = True) -> TaskSection:
    """A recipe's task section, with the decoder and the options that its network is known to need."""
    if section.kind == "auto":
        unknown = known.kind == "tensors" and labelled
        kind: Any = "classify" if unknown else known.kind
        section = section.model_copy(update={"kind": kind})
    if known.kind != section.kind or section.decode not in ("", known.decode):
        return section
    more = {"decode": known.decode, "options": {**known.options, **section.options}}
    return section.model_copy(update={**more, "labels": section.labels or known.labels})
