"""Paths in a recipe: found, written from the root, or left out of what is shipped.

A relative path starts from the current directory, as on the command line. What `eightfold compress` writes is run again
from anywhere, so its paths start from the root. A bundle names files only: the folders of one machine mean nothing on
the next, and no step is done again because a path is spelled otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from eightfold.errors import RecipeError
from eightfold.files import absolute
from eightfold.recipe import Recipe
from eightfold.zoo.datasets.folders import SHIPPED
from eightfold.zoo.sources.registry import source_of

PATTERN = "*?["


def is_path(data: str) -> bool:
    """True if a source of data is a path or pattern, not the name of a data set that is shipped or generated."""
    return data not in SHIPPED and (Path(data).exists() or any(mark in data for mark in PATTERN))


def from_root(recipe: Recipe) -> Recipe:
    """The recipe as it runs from every directory."""
    code = source_of(recipe.model.source).code(recipe.model.source)
    folder = recipe.model.code if code is None or code.folder is None else str(code.folder)
    changed = _with_paths(recipe, lambda path: str(absolute(path)))
    return changed.model_copy(
        update={"model": changed.model.model_copy(update={"code": folder and str(absolute(folder))})}
    )


def without_folders(recipe: Recipe) -> Recipe:
    """The recipe with the last name of each path in place of the path."""
    changed = _with_paths(recipe, lambda path: absolute(path).name)
    return changed.model_copy(update={"model": changed.model.model_copy(update={"code": None})})


def find_code(recipe: Recipe) -> None:
    """Let Python import the user's modules from the folder that the recipe names, before those of this directory."""
    if (folder := recipe.model.code) is None:
        return
    if not Path(folder).is_dir():
        raise RecipeError(f"model.code is {folder}, where there is no folder", remedy="name the folder of your module")
    entry = str(absolute(folder))
    if entry not in sys.path:
        sys.path.insert(sys.path.index("") if "" in sys.path else len(sys.path), entry)


def require_found(recipe: Recipe, folder: Path) -> None:
    """Refuse a recipe whose files lie beside it rather than where a relative path starts.

    Args:
        folder: that of the recipe.

    Raises:
        RecipeError: a path leads nowhere from the current directory, and somewhere from `folder`.
    """
    named = [] if recipe.data.source in SHIPPED else [recipe.data.source]

    def seen(path: str) -> str:
        named.append(path)
        return path

    _with_paths(recipe.model_copy(update={"output": "."}), seen)
    for path in named:
        if not Path(path).is_absolute() and not Path(path).exists() and (folder / path).exists():
            raise RecipeError(
                f"there is no {path} in the current directory",
                allowed="paths that start here, or from the root of the file system",
                remedy=f"it lies beside the recipe: cd {folder}",
            )


def _with_paths(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The recipe with each path changed; names of networks and data sets stay."""
    model, data = recipe.model, recipe.data
    weights = None if model.weights is None else change(model.weights)
    labelled = None if data.labelled is None else change(data.labelled)
    sections = {
        "output": change(recipe.output),
        "model": model.model_copy(
            update={"source": source_of(model.source).with_paths(model.source, change), "weights": weights}
        ),
        "data": data.model_copy(
            update={"source": change(data.source) if is_path(data.source) else data.source, "labelled": labelled}
        ),
    }
    return recipe.model_copy(update=sections)
