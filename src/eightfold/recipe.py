"""The recipe: what `eightfold run` is asked to do, as one validated, frozen value read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import RecipeError, why_unread
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.recipe_deployment import (
    BenchSection,
    CalibrateSection,
    EnginesSection,
    ExportSection,
    LimitsSection,
    QuantizeSection,
)
from eightfold.recipe_sections import CompressSection, DataSection, ModelSection, TaskSection, TrainSection
from eightfold.values import Frozen, first_fault


class Recipe(Frozen):
    """Everything `eightfold run` needs to know. See `recipes/` for commented examples."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="name of the bundle")
    output: str = Field(description="the run directory; `--output` overrides it")
    seed: int = Field(default=0, description="random seed of split, initial weights, order and samples")
    model: ModelSection
    task: TaskSection = TaskSection()
    data: DataSection
    preprocess: Preprocess
    train: TrainSection = TrainSection(epochs=0)
    compress: CompressSection = CompressSection()
    export: ExportSection = ExportSection()
    calibrate: CalibrateSection = CalibrateSection()
    quantize: QuantizeSection = QuantizeSection()
    engines: EnginesSection | None = None
    bench: BenchSection = BenchSection()
    limits: LimitsSection = LimitsSection()

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets of the exported graphs."""
        return (*self.quantize.targets, *(self.engines.targets if self.engines else ()))

    @model_validator(mode="after")
    def _check_references(self) -> Recipe:
        batches = self.export.batches
        if not batches or min(batches) < 1 or len(set(batches)) != len(batches):
            raise RecipeError(
                f"export.batches is {list(batches)}", allowed="different positive numbers", remedy="correct that line"
            )
        self._check_sizes()
        stray = set(self.engines.batches) - set(batches) if self.engines else set()
        if stray:
            raise RecipeError(
                f"engines.batches has {sorted(stray)}",
                allowed=f"what export.batches has: {list(batches)}",
                remedy="add them there or remove them here",
            )
        int8 = self.engines.targets if self.engines and "int8" in self.engines.precisions else ()
        for target in int8:
            if target not in self.quantize.targets:
                raise RecipeError(
                    f"engines asks for int8 on {target}",
                    allowed=f"what quantize.targets has: {', '.join(self.quantize.targets) or 'nothing'}",
                    remedy=f"add {target!r} to quantize.targets",
                )
        return self

    def _check_sizes(self) -> None:
        sizes = [(self.preprocess.height, self.preprocess.width), *self.export.sizes]
        if any(min(size) < 1 for size in sizes) or len(set(sizes)) < len(sizes):
            raise RecipeError(
                f"export.sizes is {list(map(list, self.export.sizes))}",
                allowed="different pairs of positive numbers, [height, width], other than preprocess has",
                remedy="correct that line",
            )


def read_recipe(path: PathLike) -> Recipe:
    """Read and validate a YAML recipe. Raises RecipeError: the file, the key, what was seen, what is allowed."""
    yaml = require("yaml", "read a recipe")
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path} ({why_unread(error)})", remedy="try recipes/demo.yaml") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML ({error})", remedy="compare it with recipes/demo.yaml") from None
    return recipe_from(data, source=str(path))


def with_limits(recipe: Recipe, **limits: float | None) -> Recipe:
    """The recipe with other `limits`; None leaves one as it is. Raises RecipeError."""
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        return recipe
    try:
        section = LimitsSection.model_validate({**recipe.limits.model_dump(), **given})
    except ValidationError as error:
        raise RecipeError(first_fault(error), allowed="0 or more", remedy="give another number") from None
    return recipe.model_copy(update={"limits": section})


def recipe_from(data: object, *, source: str = "recipe") -> Recipe:
    """A recipe from parsed YAML or JSON; `source` names it in messages. Raises RecipeError."""
    if not isinstance(data, dict):
        seen = "is empty" if data is None else f"holds {type(data).__name__}"
        raise RecipeError(f"{source} {seen}", allowed=f"the keys {_keys(Recipe)}")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(
            f"{source}: {first_fault(error)}", allowed=_allowed_beside(error), remedy="correct that line"
        ) from None


def _allowed_beside(error: ValidationError) -> str:
    """The keys that the section of an unknown or missing key may hold."""
    fault = error.errors()[0]
    if fault["type"] not in ("extra_forbidden", "missing"):
        return ""
    section: Any = Recipe
    for key in fault["loc"][:-1]:
        field = getattr(section, "model_fields", {}).get(key)
        if field is None:
            break
        section = _model_of(field.annotation)
    return f"the keys {_keys(section)}" if hasattr(section, "model_fields") else ""


def _model_of(annotation: Any) -> Any:
    """The model class in `annotation`, which may be optional."""
    options = getattr(annotation, "__args__", (annotation,))
    return next((option for option in options if hasattr(option, "model_fields")), annotation)


def _keys(model: Any) -> str:
    return ", ".join(model.model_fields)
