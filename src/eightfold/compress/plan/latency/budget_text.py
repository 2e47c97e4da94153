"""Budgets as users write them: a share of the network's own latency, memory or energy, or a number with a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eightfold.errors import UsageError

_TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(x|ms)\s*", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", re.IGNORECASE)
MIXED = "mixed"  # a precision: the program chooses it layer by layer
# What a further budget limits -> units, each with its factor; the first is the one of reports.
UNITS = {"memory": {"MB": 1.0, "GB": 1e3}, "energy": {"mJ": 1.0, "J": 1e3}}


@dataclass(frozen=True)
class Budget:
    """A share of the whole network's value, above 0 and below 1, or a number in `unit`.

    >>> Budget.parse("memory", "0.2GB").limit(whole=500)
    200.0
    >>> str(Budget.parse("energy", "0.5x"))
    '0.5x'
    """

    unit: str
    share: float | None = None
    number: float | None = None

    @classmethod
    def parse(cls, what: str, text: str) -> Budget:
        """A budget of memory or energy from its text. Raises UsageError."""
        found = _NUMBER.fullmatch(text)
        units = {unit.lower(): factor for unit, factor in UNITS[what].items()}
        first = next(iter(UNITS[what]))
        number, unit = (float(found[1]), found[2].lower()) if found else (0.0, "")
        if number > 0 and unit == "x" and number < 1:
            return cls(first, share=number)
        if number > 0 and unit in units:
            return cls(first, number=number * units[unit])
        raise UsageError(
            f"a budget of {what} of {text!r}",
            allowed=f"a share such as 0.5x (above 0, below 1), or a number with {' or '.join(UNITS[what])}",
        )

    def limit(self, whole: float) -> float:
        """The number, where the whole network has `whole`."""
        return self.number if self.number is not None else (self.share or 1.0) * whole

    def __str__(self) -> str:
        return f"{self.number:g} {self.unit}" if self.number is not None else f"{self.share:g}x"


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

    @property
    def plain(self) -> Budget:
        """As a budget of any quantity."""
        return Budget("ms", self.share, self.ms)

    def __str__(self) -> str:
        return f"{self.ms:g} ms" if self.ms is not None else f"{self.share:g}x"
