"""onnxsim and onnxslim, each in a process of its own with a time limit: both have crashed or hung on some network."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@dataclasses.dataclass(frozen=True)
class Simplifier:
    """One tool in its process, which has been loading since it was started."""

    tool: str
    process: subprocess.Popen[str]
    said: IO[str]
    time_limit_s: float

    @classmethod
    @contextlib.contextmanager
    def started(cls, tool: str, time_limit_s: float) -> Iterator[Simplifier]:
        """A simplifier's process, which ends with the context."""
        command = [sys.executable, "-m", "eightfold.export.simplify._simplify_child", tool]
        pipe = subprocess.PIPE
        # What it says goes to a file: a pipe that nobody reads yet would fill up and stop it.
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=said, text=True) as process,
        ):
            try:
                yield cls(tool, process, said, time_limit_s)
            finally:
                process.kill()

    def run(self, source: Path, target: Path) -> str:
        """Make the lean graph `target` of `source`, in one folder. "" on success, else what went wrong, in words."""
        try:
            self.process.communicate(f"{source.resolve()}\n{target.resolve()}\n", timeout=self.time_limit_s)
        except subprocess.TimeoutExpired:
            return "stopped at the time limit"
        code = self.process.returncode
        if code < 0:
            return f"crashed (signal {-code})"
        return f"failed ({self._last_words()})" if code else ""

    def _last_words(self) -> str:
        self.said.seek(0)
        lines = self.said.read().strip().splitlines() or ["no message"]
        return lines[-1][:200]
