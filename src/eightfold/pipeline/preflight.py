"""Checks a recipe before its first step, rather than minutes of training later."""

from __future__ import annotations

from pathlib import Path

from eightfold.errors import ModelError, RecipeError, UnknownNameError
from eightfold.extras import require
from eightfold.recipe import CompressSection, Recipe
from eightfold.threads import most_threads


def check_before(recipe: Recipe, directory: Path) -> None:
    """Look up the names and files that later steps need.

    Args:
        directory: of the run. Where it has been pruned the names were good, and a run that does nothing needs no torch.

    Raises:
        UnknownNameError: no such rule or score.
        RecipeError: more threads than this machine has use for.
        ModelError: no such file of weights.
    """
    if not (directory / "steps" / "prune.json").is_file():
        _check_names(recipe.compress)
    if recipe.bench.threads > most_threads():
        raise RecipeError(
            f"bench.threads is {recipe.bench.threads}",
            allowed=f"1 to {most_threads()} on this machine",
            remedy="correct that line",
        )
    if recipe.model.weights is not None and not Path(recipe.model.weights).is_file():
        raise ModelError(f"no weights file {recipe.model.weights}", allowed="a .safetensors or .pt file")


def _check_names(section: CompressSection) -> None:
    require("torch", "prune a network")
    from eightfold.compress.criteria.scores import CRITERIA
    from eightfold.compress.plan.selection_rules import RULES

    if section.rule not in RULES:
        raise UnknownNameError.of("rule", section.rule, RULES)
    if section.score not in CRITERIA:
        raise UnknownNameError.of("score", section.score, CRITERIA)
