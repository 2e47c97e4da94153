"""Learning-rate schedules as functions of progress: constant, cosine, step and one-cycle, with warm-up and a floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["constant", "cosine", "step", "onecycle"]


@dataclass(frozen=True)
class LearningRate:
    """The learning rate as a share of its peak, from progress in [0, 1].

    Attributes:
        kind: after the warm-up: "constant"; "cosine" down to `floor`; "step" multiplies by `drop` at each milestone;
            "onecycle" is a cosine whose warm-up takes `warm_up` of the run and starts at a tenth of the peak.
        warm_up: share of the run in which the rate rises linearly.
        floor: share of the peak at the end of a cosine.
        milestones: shares of the run at which "step" drops.
        drop: factor of one such step.
    """

    kind: Kind = "cosine"
    warm_up: float = 0.05
    floor: float = 0.0
    milestones: tuple[float, ...] = (0.6, 0.85)
    drop: float = 0.1

    def factor(self, progress: float) -> float:
        """Share of the peak at `progress`, clipped to [0, 1].

        >>> LearningRate("cosine", warm_up=0.0).factor(0.5)
        0.5
        """
        done = min(max(progress, 0.0), 1.0)
        first = 0.1 if self.kind == "onecycle" else 0.01
        if done < self.warm_up:
            return first + (1 - first) * done / self.warm_up
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            return float(self.drop ** sum(done >= each for each in self.milestones))
        rest = (done - self.warm_up) / (1 - self.warm_up) if self.warm_up < 1 else 1.0
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * rest))
