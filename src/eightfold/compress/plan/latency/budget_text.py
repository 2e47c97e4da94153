"""A latency budget as users write it: a share of the network's own latency, or milliseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eightfold.errors import UsageError

_TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(x|ms)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class LatencyBudget:
    """One of the two is set: `share` of the whole network's latency, above 0 and below 1, or `ms` per call.

    >>> LatencyBudget.parse("0.5x")
    LatencyBudget(share=0.5, ms=None)
    """

    share: float | None = None
    ms: float | None = None

    @classmethod
    def parse(cls, text: str | float) -> LatencyBudget:
        """A budget from its text; a number alone is a share. Raises UsageError."""
        found = _TEXT.fullmatch(text if isinstance(text, str) else f"{text}x")
        number = float(found[1]) if found else 0.0
        if found is None or number <= 0 or (found[2].lower() == "x" and number >= 1):
            raise UsageError(
                f"a latency budget of {text!r}",
                allowed="a share such as 0.5x (above 0, below 1), or a time such as 12ms",
            )
        return cls(share=number) if found[2].lower() == "x" else cls(ms=number)

    def limit_ms(self, whole_ms: float) -> float:
        """Milliseconds, where the whole network takes `whole_ms`."""
        return self.ms if self.ms is not None else (self.share or 1.0) * whole_ms

    def __str__(self) -> str:
        return f"{self.ms:g} ms" if self.ms is not None else f"{self.share:g}x"
