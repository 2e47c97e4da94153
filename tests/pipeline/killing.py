"""A run that is killed where a test says, however fast the machine is: before one of the changes that a step makes
below the run's directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# Prints what it ends before. Names are as os.fsdecode gives them; those that are relative to a folder's descriptor, as
# rmtree's are, are not counted.
PROGRAM = """
import os, signal, sys
from eightfold.pipeline.run import run

recipe, directory, step, place = sys.argv[1:]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
left = 0

def started(said):
    global left
    if said == step:
        left = int(place)

def changed(event, arguments):
    if event == "open":
        return arguments[0] if arguments[2] & WRITES else None
    return arguments[0] if event in ("os.rename", "os.remove") else None

def watch(event, arguments):
    global left
    path = changed(event, arguments) if left else None
    if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(directory):
        left -= 1
        if not left:
            print(event, os.fsdecode(path), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
run(recipe, output=directory, listener=started)
"""


def saved_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run_killed_in(step: str, recipe: Path, directory: Path, *, place: int) -> str:
    """Start a run whose process is killed before change number `place` since `step` began; what would have changed."""
    command = [sys.executable, "-c", PROGRAM, str(recipe), str(directory), step, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, f"{step} makes less than {place} changes, or failed: {done.stderr}"
    return done.stdout.strip()
