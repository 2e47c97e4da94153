"""Observers of activations: state of fixed size, updated batch by batch while images stream by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from eightfold.calib.functions_behind import Function
from eightfold.calib.histogram import SLICE, Histogram
from eightfold.calib.ranges import Method, TensorRange
from eightfold.calib.thresholds import full_range, range_of
from eightfold.errors import UsageError, one_of

Floats = npt.NDArray[np.floating[Any]]
State = npt.NDArray[np.float64]
MOMENTUM = 0.99  # of the moving average, per row


def extremes(values: Floats) -> tuple[float, float]:
    """The least and the largest value; both are NaN where one value is. Values come from memory once."""
    flat = values.reshape(-1)
    lows, highs = [], []
    for start in range(0, flat.size, SLICE):
        part = flat[start : start + SLICE]
        lows.append(part.min())
        highs.append(part.max())  # while it is in the cache
    return float(np.min(lows)), float(np.max(highs))


class Seeing(Protocol):
    """Sees values."""

    def see(self, values: Floats) -> None:
        """Take in finite values; their first axis is the batch. They are overwritten afterwards: keep no view."""


class Checking(Seeing, Protocol):
    """Sees values, and finds those that are not finite on the way."""

    def see_checked(self, values: Floats) -> bool:
        """Take in values; False where one of them is not finite."""


class Observer(Seeing, Protocol):
    """Sees values, and gives a range in the end."""

    def range(self) -> TensorRange:
        """The range of all that was seen."""

    def state(self) -> State:
        """All that is remembered, as numbers."""

    def restore(self, state: State) -> None:
        """Go back to a `state`."""


@dataclass
class MinMax:
    """The extremes."""

    low: float = np.inf
    high: float = -np.inf

    def see(self, values: Floats) -> None:
        """Widen the range by `values`."""
        self.see_checked(values)

    def see_checked(self, values: Floats) -> bool:
        """Widen the range by `values`; False where one of them is not finite."""
        low, high = extremes(values)
        self.low, self.high = min(self.low, low), max(self.high, high)
        return math.isfinite(low) and math.isfinite(high)

    def range(self) -> TensorRange:
        """The range from the least to the largest value."""
        return full_range(self.low, self.high)

    def state(self) -> State:
        return np.array([self.low, self.high])

    def restore(self, state: State) -> None:
        self.low, self.high = state.tolist()


@dataclass
class MovingAverage:
    """Exponential moving averages of every row's extremes. Rows count in their order, however they are batched."""

    momentum: float = MOMENTUM
    low: float | None = None
    high: float | None = None
    extremes: MinMax = field(default_factory=MinMax)

    def see(self, values: Floats) -> None:
        """Move the averages by the extremes of every image in `values`."""
        self.see_checked(values)

    def see_checked(self, values: Floats) -> bool:
        """Move the averages by the extremes of every image in `values`; False where one of them is not finite."""
        seen = self.extremes
        for row in values.reshape(values.shape[0] if values.ndim else 1, -1):
            low, high = extremes(row)
            if not (math.isfinite(low) and math.isfinite(high)):
                return False
            seen.low, seen.high = min(seen.low, low), max(seen.high, high)
            self.low, self.high = self._moved(self.low, low), self._moved(self.high, high)
        return True

    def _moved(self, average: float | None, value: float) -> float:
        return value if average is None else self.momentum * average + (1 - self.momentum) * value

    def range(self) -> TensorRange:
        """The range between the averaged extremes."""
        low, high = self.low or 0.0, self.high or 0.0
        seen = self.extremes
        return TensorRange(min=seen.low, max=seen.high, low=low, high=high, threshold=max(-low, high, 0.0))

    def state(self) -> State:
        return np.array(
            [
                np.nan if self.low is None else self.low,
                np.nan if self.high is None else self.high,
                *self.extremes.state(),
            ]
        )

    def restore(self, state: State) -> None:
        self.low, self.high = (None if np.isnan(value) else float(value) for value in state[:2])
        self.extremes.restore(state[2:])


@dataclass
class Histogrammed:
    """A histogram, from which `method` chooses the range.

    Args:
        function: what is done with each value next, for "mse".
    """

    method: Method
    percentile: float
    histogram: Histogram = field(default_factory=Histogram)
    function: Function | None = None

    def see(self, values: Floats) -> None:
        """Add `values` to the histogram."""
        self.histogram.add(values)

    def see_checked(self, values: Floats) -> bool:
        """Add `values` to the histogram; False where one of them is not finite."""
        return self.histogram.add(values)

    def range(self) -> TensorRange:
        """The range by the method."""
        return range_of(self.histogram, self.method, percentile=self.percentile, function=self.function)

    def state(self) -> State:
        histogram = self.histogram
        head = (histogram.exponent, histogram.min, histogram.max)
        return np.concatenate([head, histogram.counts]).astype(np.float64)

    def restore(self, state: State) -> None:
        exponent, low, high = state[:3].tolist()
        self.histogram = Histogram(int(exponent), state[3:].astype(np.int64), low, high)


@dataclass
class ChannelMean:
    """The mean of every channel. Channels lie on axis 1."""

    total: npt.NDArray[np.float64] | None = None
    count: int = 0

    def see(self, values: Floats) -> None:
        """Add `values` (N, C, ...) to the sums."""
        others = tuple(axis for axis in range(values.ndim) if axis != 1)
        found = values.sum(axis=others, dtype=np.float64)
        self.total = found if self.total is None else self.total + found
        self.count += values.size // values.shape[1]

    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of each channel, float64."""
        if self.total is None:
            raise ValueError("the mean of nothing")
        return self.total / self.count


# Method -> makes an observer, given the percent of values that a range should cover.
METHODS: dict[Method, Callable[[float], Observer]] = {
    "minmax": lambda percentile: MinMax(),
    "moving-average": lambda percentile: MovingAverage(),
    **{name: partial(Histogrammed, name) for name in ("percentile", "entropy", "mse")},
}


def register_method(name: Method, make: Callable[[float], Observer]) -> None:
    """Make a calibration method known to `calibrate`, recipes and the command line. A name that is taken is refused.

    Args:
        make: gives a new observer; its argument is the percent of values that a range should cover, where that matters.
    """
    if name in METHODS:
        raise UsageError(f"the method {name!r} exists", allowed="a new name", remedy="choose another name")
    METHODS[name] = make


def make_observer(method: Method, *, percentile: float = 99.99) -> Observer:
    """A new observer for a calibration method. Raises UnknownNameError."""
    return METHODS[one_of("method", method, list(METHODS))](percentile)
