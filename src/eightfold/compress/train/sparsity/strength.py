"""Strength of a sparsity penalty over a training run, for the whole network or channel by channel.

Liu et al. 2017 (arXiv:1708.06519) keep it constant. The decays follow public code for YOLOv3 and YOLOv4: late in the
run the penalty falls to a hundredth, for all scales ("global"), or for the largest ones only ("local", "dynamic"),
which lets the channels that stay regain accuracy. "release" goes all the way: it rises, ends, and what is zero by then
stays zero while the rest trains on without any penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eightfold.errors import UsageError, one_of

Kind = Literal["constant", "global", "local", "dynamic", "release"]
KINDS: tuple[Kind, ...] = ("constant", "global", "local", "dynamic", "release")
REDUCED = 0.01
RISE, RELEASE = 0.2, 0.6  # shares of the run: until the first "release" rises, from the second on there is no penalty
# Kind -> share of the run after which the strength falls, and share of the smallest scales that keep it.
_LATE: dict[Kind, tuple[float, float]] = {"global": (0.5, 0.0), "local": (0.5, 0.85), "dynamic": (0.4, 0.65)}


@dataclass(frozen=True)
class Strength:
    """The factor of the penalty's gradient.

    Attributes:
        s: the penalty, per scale.
        kind: "constant"; "global": a hundredth after half of the run; "local": the same for the largest 15% of the
            scales; "dynamic": for the largest 35%, after 40% of the run; "release": rises over the first fifth and ends
            after 60% of the run; channels that are dead then stay dead.
    """

    s: float = 1e-4
    kind: Kind = "constant"

    def __post_init__(self) -> None:
        one_of("schedule of a sparsity penalty", self.kind, KINDS)
        if not 0 < self.s < float("inf"):
            raise UsageError(f"a sparsity penalty of {self.s:g}", allowed="above 0; 1e-4 is usual")

    def of(self, magnitudes: Tensor, progress: float) -> Tensor:
        """Strength for each channel, in the shape of `magnitudes`, which are at least 0.

        >>> import torch
        >>> int((Strength(1.0, "local").of(torch.arange(20.0), 0.6) < 0.5).sum())
        3
        """
        if self.kind == "release":
            return torch.full_like(magnitudes, self.s * self._rising(progress))
        full = torch.full_like(magnitudes, self.s)
        if self.kind == "constant" or progress < _LATE[self.kind][0]:
            return full
        share = _LATE[self.kind][1]
        cut = torch.sort(magnitudes).values[min(int(share * magnitudes.numel()), magnitudes.numel() - 1)]
        return torch.where(magnitudes >= cut, REDUCED * self.s, self.s) if share else REDUCED * full

    def released(self, progress: float) -> bool:
        """True where the penalty has ended, and dead channels stay dead."""
        return self.kind == "release" and progress >= RELEASE

    def share(self, progress: float) -> float:
        """Share of `s` that the smallest scales feel.

        >>> [Strength(1.0, "release").share(progress) for progress in (0.1, 0.5, 0.7)]
        [0.5, 1.0, 0.0]
        """
        return float(self.of(torch.arange(2.0), progress)[0]) / self.s

    def _rising(self, progress: float) -> float:
        return 0.0 if self.released(progress) else min(1.0, progress / RISE)
