"""A run that is killed where a test says, however fast the machine is: before one of the changes that a step makes
below the run's directory.

Its process is forked from a server that has imported what runs need, so that it starts at once.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import yaml

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["eightfold.pipeline.run", "torch", "torchvision", "onnx", "onnxruntime"])


def saved_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run_killed_in(step: str, recipe: Path, directory: Path, *, place: int) -> str:
    """Start a run whose process is killed before change number `place` since `step` began; what would have changed."""
    told = recipe.with_name("killed.txt")
    # By its own name: other packages install a package `tests`, which a new process would find first.
    target = importlib.import_module("run_killed").run_killed
    process = CONTEXT.Process(target=target, args=(str(recipe), str(directory), step, place, str(told)))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"{step} makes less than {place} changes, or failed"
    return told.read_text()
