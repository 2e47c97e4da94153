"""Every option of `plan_pruning` can be given on the command line and in a recipe."""

from __future__ import annotations

import inspect

import typer

from eightfold.cli import app
from eightfold.compress.plan_pruning import plan_module
from eightfold.pipeline.steps.prune import PLAN_KEYS
from eightfold.recipe import Recipe
from eightfold.recipe_sections import CompressSection

# The network itself, and Python objects.
OF_PYTHON = {"model", "example_inputs", "graph", "targets", "loss"}
OPTIONS = set(inspect.signature(plan_module).parameters) - OF_PYTHON
# Options by another name than the parameter's.
OTHER_FLAGS = {"keep_ratio": "--keep", "keep": "--prune", "ranges": "--range"}
# Recipes have images and a seed for every step.
OF_THE_RECIPE = {"images": "data", "seed": "seed"}
# These go into one request, which a recipe makes of them; measured times are kept on the machine, not in a file.
OF_LATENCY = {"latency", "target", "precision", "batch", "threads", "rounds", "target_weights", "memory", "energy"}
KEPT_ELSEWHERE = {"profile"}


def test_every_option_has_a_flag() -> None:
    flags = {OTHER_FLAGS.get(name, f"--{name.replace('_', '-')}") for name in OPTIONS}
    command = typer.main.get_command(app.app)
    options = {name for each in command.commands["prune"].params for name in each.opts}  # type: ignore[attr-defined]  # a group
    assert flags <= options


def test_every_option_has_a_recipe_key_that_is_passed_on() -> None:
    assert {*PLAN_KEYS, "ranges", *OF_THE_RECIPE, *OF_LATENCY} == OPTIONS - KEPT_ELSEWHERE
    assert {*PLAN_KEYS, "ranges", *OF_LATENCY} <= set(CompressSection.model_fields)
    assert set(OF_THE_RECIPE.values()) <= set(Recipe.model_fields)
