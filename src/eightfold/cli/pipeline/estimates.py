"""Progress of a run with an estimate of the time that is left, from the usual shares of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from eightfold.pipeline.job.dry_run import StepPreview
from eightfold.pipeline.job.runner import StepResult

# Usual share of the time of each kind of step; others count as one.
WEIGHTS = {
    "data": 1,
    "recover": 12,
    "load weights": 2,
    "prune": 20,
    "compensate": 12,
    "export": 5,
    "quantize": 4,
    "evaluate": 5,
    "bench": 30,
}
# Before so much of the work is done, an estimate says little.
FIRST = 0.08


class Estimates:
    """Tells the steps of a run as they come, numbered, with the time that is left.

    Args:
        steps: those of the run; what is up to date counts nothing.
        known: kind of step -> seconds that it takes on any machine, beside its usual share.
        apart: kinds of steps whose time says nothing of the others', such as measurements until they agree; there is no
            estimate before their end.
        clock: seconds.
    """

    def __init__(
        self,
        steps: Sequence[StepPreview],
        known: Mapping[str, float] | None = None,
        *,
        apart: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = [step.name for step in steps]
        stale = [step.name for step in steps if step.state != "up to date"]
        self._apart = {name for name in stale if name.startswith(tuple(apart))}
        self._left = {name: weight(name) for name in stale if name not in self._apart}
        self._known = {name: seconds for name in stale if (seconds := _value(known or {}, name, 0.0))}
        self._total, self._clock, self._begin = max(sum(self._left.values()), 1), clock, clock()
        self._waited = 0.0

    def show(self, event: StepResult | str) -> None:
        """A listener of `run`."""
        if isinstance(event, str):
            place = f"[{self._names.index(event) + 1}/{len(self._names)}] " if event in self._names else ""
            print(f"{place}{event} ...{self.remaining()}", flush=True)
            return
        self._left.pop(event.name, None)
        self._waited += self._known.pop(event.name, 0.0)
        if event.name in self._apart:
            self._apart.remove(event.name)
            self._waited += event.seconds
        said = "up to date" if event.skipped else f"{event.said} ({event.seconds:.1f} s)"
        print(f"{event.name}: {said}", flush=True)

    def remaining(self) -> str:
        """Time that is left in words; nothing at the beginning."""
        left = sum(self._left.values())
        done = self._total - left
        if self._apart or done / self._total < FIRST:
            return ""
        worked = max(self._clock() - self._begin - self._waited, 0.0)
        seconds = worked * left / done + sum(self._known.values())
        return f" about {seconds / 60:.0f} min left" if seconds >= 90 else f" about {seconds:.0f} s left"


def weight(name: str) -> float:
    """The usual share of a step."""
    return _value(WEIGHTS, name, 1)


def _value(table: Mapping[str, float], name: str, other: float) -> float:
    return next((value for kind, value in table.items() if name.startswith(kind)), other)
