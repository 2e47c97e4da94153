"""Progress of a run with an estimate of the time that is left, from the usual shares of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from eightfold.pipeline.job.dry_run import StepPreview
from eightfold.pipeline.job.runner import StepResult

# Usual share of the time of each kind of step; others count as one.
WEIGHTS = {
    "data": 1,
    "recover": 40,
    "load weights": 2,
    "prune": 2,
    "compensate": 12,
    "export": 5,
    "quantize": 4,
    "evaluate": 5,
}
# Before so much of the work is done, an estimate says little.
FIRST = 0.08


class Estimates:
    """Tells the steps of a run as they come, numbered, with the time that is left.

    Args:
        steps: those of the run; what is up to date counts nothing.
        clock: seconds.
    """

    def __init__(self, steps: Sequence[StepPreview], clock: Callable[[], float] = time.monotonic) -> None:
        self._names = [step.name for step in steps]
        self._left = {step.name: 0 if step.state == "up to date" else weight(step.name) for step in steps}
        self._total, self._clock, self._begin = max(sum(self._left.values()), 1), clock, clock()

    def show(self, event: StepResult | str) -> None:
        """A listener of `run`."""
        if isinstance(event, str):
            place = f"[{self._names.index(event) + 1}/{len(self._names)}] " if event in self._names else ""
            print(f"{place}{event} ...{self.remaining()}", flush=True)
            return
        self._left[event.name] = 0
        said = "up to date" if event.skipped else f"{event.said} ({event.seconds:.1f} s)"
        print(f"{event.name}: {said}", flush=True)

    def remaining(self) -> str:
        """Time that is left in words; nothing at the beginning."""
        left = sum(self._left.values())
        done = (self._total - left) / self._total
        if done < FIRST:
            return ""
        seconds = (self._clock() - self._begin) * left / (self._total - left)
        return f" about {seconds / 60:.0f} min left" if seconds >= 90 else f" about {seconds:.0f} s left"


def weight(name: str) -> int:
    """The usual share of a step."""
    return next((share for kind, share in WEIGHTS.items() if name.startswith(kind)), 1)
