"""The last lines on the terminal after a run: what changed, how fast it is, where it lies, what to type next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.report.content import content_of
from eightfold.runtime.bench.latency import LatencyTable

if TYPE_CHECKING:
    from eightfold.pipeline.run import RunResult


def summary(result: RunResult, width: int | None = None) -> str:
    """Text to read after a run; the table in lines of about `width` characters at most."""
    job = result.job
    image = next(iter(job.test_images.items))
    return "\n".join(
        [
            LatencyTable.load(job.path(at.LATENCY)).describe(width),
            "",
            content_of(job).describe(),
            "",
            f"bundle  {result.bundle}",
            f"report  {result.report}",
            f"next    {shlex.join([program(), 'predict', str(result.bundle), str(image)])}",
        ]
    )


def program() -> str:
    """The command to type here: by its path if its environment is not activated, as after `make demo`."""
    beside = Path(sys.executable).with_name("eightfold")
    return "eightfold" if shutil.which("eightfold") or not beside.exists() else os.path.relpath(beside)
