"""The artifacts that a recipe asks for: their names, where they lie in the run directory and in the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eightfold.recipe import Recipe
from eightfold.runtime.bundle.sizes import Size, size_text

Precision = Literal["fp32", "fp16", "int8"]
VARIANTS = ("baseline", "pruned")


@dataclass(frozen=True)
class ArtifactSpec:
    """One artifact to be. `path` is the same in the run directory and in the bundle."""

    variant: str
    precision: Precision
    target: str
    batch: int
    format: Literal["onnx", "engine"] = "onnx"
    size: Size | None = None  # of the images, where the recipe asks for several
    raw: bool = False  # where graphs ship with a decoder: what its outputs were before

    @property
    def network(self) -> str:
        """The name that artifacts of all batch and image sizes share: "pruned-int8-cpu-x86"."""
        suffix = "" if self.target == "any" else f"-{self.target.replace(':', '-')}"
        return f"{self.variant}-{self.precision}{suffix}"

    @property
    def curve(self) -> str:
        """The name that artifacts of all batch sizes share."""
        return self.network if self.size is None else f"{self.network}-{size_text(self.size)}"

    @property
    def id(self) -> str:
        """Id in the manifest: "pruned-int8-cpu-x86-b1"."""
        return f"{self.curve}-b{self.batch}" + ("-engine" if self.format == "engine" else "")

    @property
    def path(self) -> str:
        """Path in the run's directory."""
        folder = "engines" if self.format == "engine" else self._folder
        return f"{folder}/{self.curve}-b{self.batch}.{self.format}"

    @property
    def weights(self) -> str:
        """Folder of the weights of the graphs of all batch and image sizes."""
        return f"{self._folder}/{self.network}.weights"

    @property
    def _folder(self) -> str:
        return "raw" if self.raw else "onnx"


def files_of(graphs: Iterable[ArtifactSpec]) -> tuple[str, ...]:
    """The files that these graphs consist of: each graph, and the weights of each network once."""
    graphs = list(graphs)
    return (*(wanted.path for wanted in graphs), *dict.fromkeys(wanted.weights for wanted in graphs))


def sizes_of(recipe: Recipe) -> tuple[Size | None, ...]:
    """The image sizes, that of the recipe's preprocessing first; None where that is the only one."""
    default = recipe.preprocess.height, recipe.preprocess.width
    return (default, *recipe.export.sizes) if recipe.export.sizes else (None,)


def float_artifacts(recipe: Recipe, variant: str) -> list[ArtifactSpec]:
    """The graphs exported from torch."""
    return _at_every_size(
        recipe, ArtifactSpec(variant, "fp32", "any", 1, raw=recipe.export.decode), recipe.export.batches
    )


def calibrated_artifacts(recipe: Recipe) -> list[ArtifactSpec]:
    """The float graphs that are calibrated and quantized: the pruned ones, or their equalized form."""
    return float_artifacts(recipe, "equalized" if recipe.quantize.equalize else "pruned")


def int8_artifacts(recipe: Recipe, target: str) -> list[ArtifactSpec]:
    """The graphs quantized for a target."""
    return _at_every_size(
        recipe, ArtifactSpec("pruned", "int8", target, 1, raw=recipe.export.decode), recipe.export.batches
    )


def made_artifacts(recipe: Recipe) -> list[ArtifactSpec]:
    """Every graph that ships, as it is before the decoder goes in, where that is asked for."""
    floats = [wanted for variant in VARIANTS for wanted in float_artifacts(recipe, variant)]
    return floats + [wanted for target in recipe.quantize.targets for wanted in int8_artifacts(recipe, target)]


def onnx_artifacts(recipe: Recipe) -> list[ArtifactSpec]:
    """Every graph that ships. A CPU can run them all."""
    return [replace(wanted, raw=False) for wanted in made_artifacts(recipe)]


def judged_artifacts(recipe: Recipe) -> list[ArtifactSpec]:
    """The graphs that promises on accuracy are about: the smallest batch at the default image size."""
    batch, size = min(recipe.export.batches), sizes_of(recipe)[0]
    return [wanted for wanted in onnx_artifacts(recipe) if (wanted.batch, wanted.size) == (batch, size)]


def engine_artifacts(recipe: Recipe) -> list[ArtifactSpec]:
    """The engines that the recipe asks for."""
    section = recipe.engines
    if section is None:
        return []
    wanted = [ArtifactSpec("pruned", precision, section.target, 1, "engine") for precision in section.precisions]
    return [made for each in wanted for made in _at_every_size(recipe, each, section.batches)]


def _at_every_size(recipe: Recipe, wanted: ArtifactSpec, batches: Sequence[int]) -> list[ArtifactSpec]:
    return [replace(wanted, size=size, batch=batch) for size in sizes_of(recipe) for batch in batches]
