"""Options and results of a recovery."""

from __future__ import annotations

from dataclasses import dataclass

from eightfold.compress.train.devices import Amp
from eightfold.compress.train.log import Row
from eightfold.compress.train.options import Clock
from eightfold.compress.train.recover.views import Augment

PHOTOGRAPHS = Augment()


@dataclass(frozen=True)
class RecoverOptions:
    """
    Attributes:
        rate: peak learning rate, relative to the size of each tensor's values.
        batch: images in each step.
        augment: how views of images vary.
        dependence: power of the outputs' dependence on a layer that gives the layer's weight.
        output_weight: of the outputs beside the features.
        least_squares: whether to start from least squares where that is closer to the original.
        patience: checks without improvement, of 20 in a run, after which it stops.
        points: names of weights, with wildcards, whose layers' outputs are compared; all layers by default.
        clock: measures `minutes`: "wall" time, or "cpu" time of this process.
        device, amp: see `Devices`.
    """

    rate: float = 3e-3
    batch: int = 8
    augment: Augment = PHOTOGRAPHS
    dependence: float = 0.5
    output_weight: float = 1.0
    least_squares: bool = True
    patience: int = 6
    points: tuple[str, ...] = ("*",)
    clock: Clock = "wall"
    device: str = "auto"
    amp: Amp = "auto"


@dataclass(frozen=True)
class Recovery:
    """Result of a recovery. Agreements are with the original on held-out images: 1 is equal, see `OutputKind`.

    Attributes:
        before: agreement of the network as it came.
        started: agreement after least squares, if that was closer, else `before`.
        after: agreement at the end.
        held_out: images that were kept apart; 0 where there were too few, and other views of them were checked.
        stopped: "", "early", "interrupted", or why the run ended before its time.
    """

    before: float
    started: float
    after: float
    steps: int
    seconds: float
    held_out: int
    stopped: str
    rows: tuple[Row, ...] = ()

    def describe(self) -> str:
        """One or two lines for a person."""
        checked = f"{self.held_out} held-out images" if self.held_out else "other views of the same few images"
        lines = [
            f"agreement with the original on {checked}: {self.before:.3f} before, {self.started:.3f} at the start, "
            f"{self.after:.3f} after {self.steps} steps in {self.seconds:.0f} s"
        ]
        if self.stopped:
            lines.append(f"stopped: {_STOPS.get(self.stopped, self.stopped)}")
        return "\n".join(lines)


_STOPS = {
    "early": "agreement no longer grew; the best state is kept",
    "interrupted": "interrupted; the best state so far is kept",
}
