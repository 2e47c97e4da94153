"""Checks a recipe before its first step, rather than minutes of training later."""

from __future__ import annotations

from pathlib import Path

from eightfold.errors import RecipeError, UnknownNameError
from eightfold.extras import require
from eightfold.files import require_model_file
from eightfold.onnx_graph.graph import require_float32_weights
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.recipe import Recipe
from eightfold.runtime.backends import backend_named
from eightfold.tasks.classify import Classify
from eightfold.tasks.kinds import KINDS
from eightfold.threads import most_threads
from eightfold.zoo.sources.pruned_folder import onnx_file_of
from eightfold.zoo.sources.registry import source_of


def check_before(recipe: Recipe, directory: Path) -> None:
    """Look up the names and files that later steps need.

    Args:
        directory: of the run. Where it has been pruned the names were good, and a run that does nothing needs no torch.

    Raises:
        UnknownNameError: no such rule, score or network.
        RecipeError: more threads than this machine has use for; no weights, or two sources of them.
        ModelError: no such file of weights, module or function.
        CalibrationError: an ONNX file of 16-bit weights.
        BackendError: a back end of `bench.backends` is not installed.
    """
    if not (directory / "steps" / "prune.json").is_file():
        _check_names(recipe)
        source_of(recipe.model.source).check(recipe.model.source)
        _require_float32(recipe.model.source)
    if recipe.bench.threads > most_threads():
        raise RecipeError(
            f"bench.threads is {recipe.bench.threads}",
            allowed=f"1 to {most_threads()} on this machine",
            remedy="correct that line",
        )
    for name in recipe.bench.backends:
        backend_named(name)
    _check_weights(recipe)
    if recipe.model.weights is not None:
        require_model_file(recipe.model.weights, "weights file", allowed="a .safetensors or .pt file")


def _require_float32(source: str) -> None:
    """A file of 16 bits cannot be calibrated, which comes after pruning and recovery."""
    file = onnx_file_of(source)
    if file is not None and file.is_file():
        require_float32_weights(load_onnx(file, external=False), str(file))


def _check_weights(recipe: Recipe) -> None:
    source = source_of(recipe.model.source)
    if recipe.model.weights is None:
        if recipe.train.epochs == 0 and not source.brings_weights(recipe.model.source):
            raise RecipeError(
                "the recipe neither trains the network nor names its weights",
                allowed="model.weights with a .safetensors or weights-only .pt file, or train.epochs of 1 or more",
                remedy="add one of the two",
            )
    elif not source.takes_weights(recipe.model.source):
        raise RecipeError(
            f"model.weights beside {recipe.model.source}, which has its own",
            allowed="one of them",
            remedy="leave it out",
        )


def _check_names(recipe: Recipe) -> None:
    section = recipe.compress
    require("torch", "prune a network")
    from eightfold.compress.criteria.scores import CRITERIA, needs_of
    from eightfold.compress.plan.selection_rules import MEASURED, RULES

    if section.rule not in (*RULES, MEASURED):
        raise UnknownNameError.of("rule", section.rule, [*RULES, MEASURED])
    if section.score not in CRITERIA:
        raise UnknownNameError.of("score", section.score, CRITERIA)
    trains = section.compensate == "none" and (section.finetune.epochs or section.recover_minutes)
    if section.layer_norms and section.compensate != "lsq" and not trains:
        raise RecipeError(
            f"compress.compensate is {section.compensate}, which leaves the norms of compress.layer_norms as they are",
            allowed="lsq, or none before compress.finetune or compress.recover_minutes",
            remedy="take lsq, which re-fits the norms",
        )
    if recipe.train.distill:
        raise RecipeError(
            "train.distill", allowed="compress.finetune.distill: the network before pruning is the teacher"
        )
    if needs_of(section.score) == "loss" and not KINDS.get(recipe.task.kind, Classify).scores_by_loss:
        without = sorted(name for name in CRITERIA if needs_of(name) != "loss")
        raise RecipeError(
            f"compress.score is {section.score}, which needs a loss, and the task {recipe.task.kind} has none here",
            allowed=", ".join(without),
            remedy="choose one from that list; lsq looks at images alone",
        )
