"""Quantities that a plan stays within: latency on a target, memory, energy. Each has prices that are fitted to
measurements of whole networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eightfold.compress.latency.report import SideReport
from eightfold.compress.plan.latency.budget_text import Budget
from eightfold.compress.plan.latency.choices import WidthChoice
from eightfold.compress.plan.latency.prices import PriceLimit, Prices
from eightfold.compress.plan.latency.widths import Counts

# Named sets of kept counts -> the quantity, measured on whole networks.
Measure = Callable[[Mapping[str, Counts]], Mapping[str, float]]
MISS = 0.03
AIM = 0.985  # of the budget: the program fills it to the brim, and a prediction errs to both sides


@dataclass
class Side:
    """One quantity beside the latency on the first target; `prices` grow better with every measurement.

    Attributes:
        measure: None where nothing can be measured here: prices are then a roofline's, or another machine's profile.
        whole: of the whole network.
        weight: in a weighted sum of latencies; 0 where the quantity has a limit of its own.
    """

    name: str
    unit: str
    budget: Budget
    prices: Prices
    measure: Measure | None
    whole: float = 0.0
    weight: float = 0.0
    measured: tuple[tuple[str, Counts, float], ...] = ()

    @property
    def most(self) -> float:
        """The budget in the quantity's own unit."""
        return self.budget.limit(self.whole)

    def fit(self, plans: Mapping[str, Counts]) -> None:
        """Measure whole networks, the first of which is called "whole", and fit the prices to them."""
        if self.measure is None:
            self.whole = self.prices.network_ms({})
            return
        found = self.measure(plans)
        self.measured = tuple((name, plans[name], value) for name, value in found.items())
        self.prices = self._fitted()
        self.whole = found["whole"]

    def check(self, counts: Counts) -> float | None:
        """Measure a plan beside the whole network, and scale it to what the whole network took before."""
        if self.measure is None:
            return None
        found = self.measure({"whole": self.measured[0][1], "plan": counts})
        value = found["plan"] / found["whole"] * self.whole
        self.measured = (*self.measured, ("plan", counts, value))
        return value

    def refit(self) -> None:
        """Fit the prices anew to all that was measured."""
        if self.measure is not None:
            self.prices = self._fitted()

    def limit(self, share: float = AIM) -> PriceLimit:
        """The limit for the program, at a share of the budget."""
        return PriceLimit(self.prices, self.most * share)

    def missed(self, predicted: float, value: float | None) -> bool:
        """True if a measurement is over the budget, or far from its prediction."""
        if value is None:
            return False
        return abs(predicted / value - 1) > MISS or (not self.weight and value > self.most)

    def report(self, counts: Counts, value: float | None) -> SideReport:
        """The result as a report."""
        return SideReport(
            name=self.name,
            unit=self.unit,
            budget=str(self.budget),
            limit=None if self.weight else self.most,
            whole=self.whole,
            predicted=self.prices.network_ms(counts),
            measured=value,
        )

    def _fitted(self) -> Prices:
        return self.prices.fitted([(counts, value) for _, counts, value in self.measured])


def least_value(side: Side, choices: tuple[WidthChoice, ...]) -> float:
    """The least that a side can reach."""
    return side.prices.network_ms({choice.group: min(choice.counts) for choice in choices})
