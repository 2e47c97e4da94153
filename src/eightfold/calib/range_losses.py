"""Signal-to-noise ratio lost by each tensor's range against the best range, for every calibration method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eightfold.calib.histogram import Histogram
from eightfold.calib.observers import Histogrammed, MinMax, MovingAverage, Observer, State
from eightfold.calib.quantization_error import loss_db, mass_of
from eightfold.calib.ranges import TensorRange
from eightfold.calib.thresholds import range_of

FAR_DB = 6.0  # half as much signal to noise, in amplitude
AT_ONCE = 1 << 14  # sampled values to count at once
SAMPLED_PER_ROW = 1024  # values, where no histogram of all of them is kept


@dataclass
class Sampled:
    """An observer of extremes beside a histogram of some values of each row, the same however rows are batched.

    Values wait until there are enough of them to count at once.
    """

    observer: MinMax | MovingAverage
    sample: Histogrammed = field(default_factory=lambda: Histogrammed("mse", 100.0))
    seen: int = 0
    _waiting: list[npt.NDArray[np.floating[Any]]] = field(default_factory=list)
    _count: int = 0

    def see(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """Show `values` to the observer, and some of them to the histogram."""
        self.see_checked(values)

    def see_checked(self, values: npt.NDArray[np.floating[Any]]) -> bool:
        """The same; False where a value is not finite."""
        if not self.observer.see_checked(values):
            return False
        rows = values.reshape(values.shape[0] if values.ndim else 1, -1)
        # A copy, for a view would hold the whole activation.
        some = rows[:, :: max(1, rows.shape[1] // SAMPLED_PER_ROW)].copy()
        self._waiting.append(some.reshape(-1))
        self._count += some.size
        self.seen += values.size
        if self._count >= AT_ONCE:
            self._flush()
        return True

    def _flush(self) -> None:
        if self._waiting:
            self.sample.see(np.concatenate(self._waiting))
            self._waiting, self._count = [], 0

    def range(self) -> TensorRange:
        """The observer's range."""
        return self.observer.range()

    def state(self) -> State:
        self._flush()
        own = self.observer.state()
        return np.concatenate([[self.seen, len(own)], own, self.sample.state()])

    def restore(self, state: State) -> None:
        self.seen, count = int(state[0]), int(state[1])
        self.observer.restore(state[2 : 2 + count])
        self.sample.restore(state[2 + count :])

    def histogram(self) -> Histogram:
        """All that was seen, as far as the sample tells, with the extremes once each."""
        self._flush()
        sample, found = self.sample.histogram, self.range()
        times = max(1, round(self.seen / max(int(sample.counts.sum()), 1)))
        whole = Histogram(sample.exponent, sample.counts * times, sample.min, sample.max)
        whole.add(np.array([found.min, found.max], np.float32))
        return whole


def with_sample(observer: Observer) -> Observer:
    """An observer that also reports the cost of its range."""
    return Sampled(observer) if isinstance(observer, MinMax | MovingAverage) else observer


def loss_of(observer: Observer) -> float:
    """Loss of SQNR under an observer's range against that under "mse", in dB; 0 where there is none, or
    where it is not known."""
    if isinstance(observer, Sampled):
        histogram = observer.histogram()
    elif isinstance(observer, Histogrammed) and observer.method != "mse":
        histogram = observer.histogram
    else:
        return 0.0
    if not np.isfinite(histogram.max) or histogram.min == histogram.max == 0:
        return 0.0
    return loss_db(mass_of(histogram), observer.range(), range_of(histogram, "mse"))
