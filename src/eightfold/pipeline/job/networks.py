"""The networks of a run before and after pruning: torch modules with weights, or ONNX files that run as modules."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eightfold.errors import ModelError, RecipeError
from eightfold.extras import require
from eightfold.files import atomic_directory, atomic_path, require_model_file
from eightfold.pipeline.job import run_files as at
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.pruned_folder import onnx_file_of
from eightfold.zoo.sources.registry import load_source, source_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from eightfold.compress.latency.whole_network import Writer
    from eightfold.compress.onnx.graph_file import OnnxGraph
    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.types import Args
    from eightfold.export.fixed_size.file_inputs import FileInputs
    from eightfold.recipe import Recipe
    from eightfold.runtime.bundle.sizes import Size


class RunContext(Protocol):
    """The parts of a job that its networks need."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def by_agreement(self) -> bool: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def image_size(self) -> Size: ...

    def path(self, name: str) -> Path: ...

    def example_inputs(self) -> tuple[Tensor]: ...


@dataclass(frozen=True)
class RunNetworks(ABC):
    """The network of a recipe, as the steps of a run need it."""

    job: RunContext

    @property
    @abstractmethod
    def baseline(self) -> str:
        """The file in the run directory that holds the network before pruning."""

    @property
    @abstractmethod
    def input_name(self) -> str:
        """Name of the image input in exported graphs."""

    @property
    def batch(self) -> int | None:
        """Images in every call of the module; None where any number is taken."""
        return None

    @abstractmethod
    def original(self) -> nn.Module:
        """The network as its source and the recipe's weights give it."""

    @abstractmethod
    def module(self, variant: str) -> nn.Module:
        """The network "baseline" or "pruned" from the run directory, in evaluation mode; a new one in each call."""

    @abstractmethod
    def exported(self, variant: str) -> nn.Module | FileInputs:
        """The origin of fixed-size graphs."""

    @abstractmethod
    def save_baseline(self, network: nn.Module) -> None:
        """Write the network before pruning."""

    @abstractmethod
    def save_pruned(self, network: nn.Module, plan: PrunePlan) -> None:
        """Write the pruned network with its plan."""

    def writer(self) -> Writer | None:
        """Writes the module "baseline" at its present widths to a fixed-size file; None for modules of torch."""
        return None

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One random batch of images, as few as the network takes."""
        return self.job.example_inputs()

    @property
    def trace_arguments(self) -> Args:
        """Further arguments with which a trace reaches every layer, such as heads that only training runs."""
        return ()

    def batches(self, images: Tensor) -> Tensor | Sequence[Tensor]:
        """Model-ready images as `compensate` takes them; in batches of their own where the network fixes that."""
        step = self.batch
        return images if step is None else [images[at : at + step] for at in range(0, len(images) - step + 1, step)]


class ModuleNetworks(RunNetworks):
    """A torch module from any source."""

    @property
    def baseline(self) -> str:
        return at.BASELINE

    @property
    def input_name(self) -> str:
        return "images"

    def loaded(self, weights: str | None = None) -> LoadedModel:
        """A new network with the random weights that the seed gives, or with those in a file."""
        recipe, source = self.job.recipe, self.job.recipe.model.source
        labelled = not self.job.by_agreement and source_of(source).takes_weights(source)
        return load_source(
            source,
            SourceOptions(
                num_classes=(labelled and len(self.job.classes)) or recipe.model.classes,
                size=self.job.image_size,
                weights=None if weights is None else Path(weights),
                inputs=recipe.model.inputs,
                seed=recipe.seed,
            ),
        )

    @property
    def trace_arguments(self) -> Args:
        return self.loaded().trace_arguments

    def original(self) -> nn.Module:
        return self.loaded(self.job.recipe.model.weights).module

    def module(self, variant: str) -> nn.Module:
        from eightfold.compress.surgery.artifacts import load_pruned
        from eightfold.zoo.weights import load_weights

        if variant == "pruned":
            return load_pruned(lambda: self.loaded().module, self.job.path(at.PRUNED)).eval()
        model = self.loaded().module
        load_weights(model, self.job.path(at.BASELINE))
        return model.eval()

    def exported(self, variant: str) -> nn.Module:
        return self.module(variant)

    def save_baseline(self, network: nn.Module) -> None:
        from eightfold.compress.surgery.artifacts import own_memory

        save_file = require("safetensors.torch", "write weights").save_file
        with atomic_path(self.job.path(at.BASELINE)) as temporary:
            save_file(own_memory(network), str(temporary))

    def save_pruned(self, network: nn.Module, plan: PrunePlan) -> None:
        from eightfold.compress.surgery.artifacts import save_pruned

        shutil.rmtree(self.job.path(at.PRUNED), ignore_errors=True)
        save_pruned(network, plan, self.job.path(at.PRUNED), source=self.loaded().record())


@dataclass(frozen=True)
class FileNetworks(RunNetworks):
    """An ONNX file: the graph keeps its names, inputs and outputs."""

    source: Path

    @property
    def baseline(self) -> str:
        return at.BASELINE_GRAPH

    @property
    def inputs(self) -> FileInputs:
        from eightfold.export.fixed_size.file_inputs import FileInputs

        return FileInputs.of(self.source)

    @property
    def input_name(self) -> str:
        return self.inputs.image.name

    @property
    def batch(self) -> int | None:
        return self.inputs.fixed_batch or None

    def example_inputs(self) -> tuple[Tensor, ...]:
        from eightfold.compress.onnx.inputs import example_inputs

        return example_inputs(self._graph(self.source).module.inputs, size=self.job.image_size)

    def writer(self) -> Writer:
        from eightfold.compress.onnx.fixed_writer import writer_of

        return writer_of(self._graph(self.path("baseline")), self.job.image_size)

    def original(self) -> nn.Module:
        return self._graph(self.source).module

    def module(self, variant: str) -> nn.Module:
        return self._graph(self.path(variant)).module.eval()

    def path(self, variant: str) -> Path:
        return self.job.path(at.BASELINE_GRAPH if variant == "baseline" else at.PRUNED_GRAPH)

    def exported(self, variant: str) -> FileInputs:
        from eightfold.export.fixed_size.file_inputs import FileInputs

        return FileInputs.of(self.path(variant))

    def save_baseline(self, network: nn.Module) -> None:
        from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx

        with atomic_path(self.job.path(at.BASELINE_GRAPH)) as temporary:
            save_onnx(load_onnx(self.source), temporary)

    def save_pruned(self, network: nn.Module, plan: PrunePlan) -> None:
        graph: Any = network
        with atomic_directory(self.job.path(at.PRUNED)) as temporary:
            self._graph(self.path("baseline")).save(temporary / "model.onnx", graph)
            plan.save(temporary / "plan.json")

    def _graph(self, path: Path) -> OnnxGraph:
        from eightfold.compress.onnx.graph_file import open_onnx

        return open_onnx(path, size=self.job.image_size)


def networks_of(job: RunContext) -> RunNetworks:
    """The networks of a recipe. Raises ModelError or RecipeError where an ONNX file is not one of images."""
    source = onnx_file_of(job.recipe.model.source)
    if source is None:
        return ModuleNetworks(job)
    require_model_file(source, "ONNX file", allowed="an .onnx file that exists")
    networks = FileNetworks(job, source)
    inputs = networks.inputs
    inputs.require_one()
    if not inputs.image.takes_images:
        raise ModelError(
            f"input {inputs.image.name!r} of {source} is {inputs.image.dtype} with {len(inputs.image.dims)} axes",
            allowed="images (batch, channels, height, width) or (batch, height, width, channels)",
            remedy="export it: eightfold export takes networks of other inputs",
        )
    if job.recipe.train.epochs or job.recipe.compress.finetune.epochs:
        raise RecipeError(
            f"epochs of training for {source}", allowed="0: an ONNX file has no training code", remedy="leave it out"
        )
    return networks
