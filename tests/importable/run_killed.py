"""A run that ends its own process; see `tests/pipeline/killing.py`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killer:
    """Ends its process before change number `place` since `step` began, and writes down before which one.

    Names are as os.fsdecode gives them; those that are relative to a folder's descriptor, as rmtree's are, are not
    counted.
    """

    def __init__(self, directory: str, step: str, place: int, told: str) -> None:
        self.directory, self.step, self.place, self.told, self.left = directory, step, place, told, 0

    def started(self, step: object) -> None:
        if step == self.step:
            self.left = self.place

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = self._changed(event, arguments) if self.left else None
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(self.directory):
            self.left -= 1
            if not self.left:
                Path(self.told).write_text(f"{event} {os.fsdecode(path)}")
                os.kill(os.getpid(), signal.SIGKILL)

    def _changed(self, event: str, arguments: tuple[Any, ...]) -> Any:
        if event == "open":
            return arguments[0] if arguments[2] & WRITES else None
        return arguments[0] if event in ("os.rename", "os.remove") else None


def run_killed(recipe: str, directory: str, step: str, place: int, told: str) -> None:
    """Run a recipe until that change."""
    from eightfold.pipeline.run import run

    killer = Killer(directory, step, place, told)
    sys.addaudithook(killer.watch)
    run(recipe, output=directory, listener=killer.started)
