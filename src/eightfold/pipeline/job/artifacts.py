"""The artifacts that a recipe asks for: their names, where they lie in the run directory and in the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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


class Artifacts(tuple[ArtifactSpec, ...]):
    """Artifacts in order."""

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of each graph, and of the weights of each network once."""
        return (*(each.path for each in self), *dict.fromkeys(each.weights for each in self))

    def each(self, **changes: Any) -> Artifacts:
        """The same artifacts with other attributes."""
        return Artifacts(replace(each, **changes) for each in self)


@dataclass(frozen=True)
class RunArtifacts:
    """The artifacts of a recipe.

    Attributes:
        sizes: image sizes, that of the recipe's preprocessing first; None if that is the only one.
        floats: graphs exported from torch, by variant.
        calibrated: float graphs to calibrate and quantize: the pruned ones, or their equalized form.
        calibration: the one of them that is calibrated, at the largest batch and the default image size: it runs
            fastest per image, and the ranges hold for all.
        int8: quantized graphs by target.
        raw: graphs that ship, before the decoder goes in, if the recipe asks for it.
        onnx: graphs that ship. A CPU can run them all.
        judged: graphs whose accuracy is judged: the smallest batch at the default image size.
        engines: engines that the recipe asks for.
    """

    sizes: tuple[Size | None, ...]
    floats: Mapping[str, Artifacts]
    calibrated: Artifacts
    calibration: ArtifactSpec
    int8: Mapping[str, Artifacts]
    raw: Artifacts
    onnx: Artifacts
    judged: Artifacts
    engines: Artifacts

    @classmethod
    def of(cls, recipe: Recipe) -> RunArtifacts:
        default = recipe.preprocess.height, recipe.preprocess.width
        sizes: tuple[Size | None, ...] = (default, *recipe.export.sizes) if recipe.export.sizes else (None,)
        base = ArtifactSpec("pruned", "fp32", "any", 1, raw=recipe.export.decode)
        pruned = _at_every_size(base, sizes, recipe.export.batches)
        floats = {"baseline": pruned.each(variant="baseline"), "pruned": pruned}
        calibrated = pruned.each(variant="equalized") if recipe.quantize.equalize else pruned
        int8 = {target: pruned.each(precision="int8", target=target) for target in recipe.quantize.targets}
        raw = Artifacts(each for made in (*floats.values(), *int8.values()) for each in made)
        onnx = raw.each(raw=False)
        smallest = min(recipe.export.batches), sizes[0]
        return cls(
            sizes=sizes,
            floats=floats,
            calibrated=calibrated,
            calibration=max((each for each in calibrated if each.size == sizes[0]), key=lambda each: each.batch),
            int8=int8,
            raw=raw,
            onnx=onnx,
            judged=Artifacts(each for each in onnx if (each.batch, each.size) == smallest),
            engines=_engines(recipe, sizes),
        )


def _engines(recipe: Recipe, sizes: Sequence[Size | None]) -> Artifacts:
    section = recipe.engines
    if section is None:
        return Artifacts()
    specs = [
        ArtifactSpec("pruned", precision, target, 1, "engine")
        for target in section.targets
        for precision in section.precisions
    ]
    return Artifacts(each for spec in specs for each in _at_every_size(spec, sizes, section.batches))


def _at_every_size(spec: ArtifactSpec, sizes: Sequence[Size | None], batches: Sequence[int]) -> Artifacts:
    return Artifacts(replace(spec, size=size, batch=batch) for size in sizes for batch in batches)
