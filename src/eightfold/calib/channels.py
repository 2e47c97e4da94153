"""Ranges of every channel of an activation, by any method, from state of fixed size: what equalization needs, and what
tells which channels share a tensor's scale badly.

All channels of a tensor are counted at once: a loop over them would take longer than the network. Channels lie on
axis 1; tensors without that axis are one channel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from eightfold.calib.calibrate import CalibrationOptions, observe
from eightfold.calib.histogram import MIN_EXPONENT, Histogram
from eightfold.calib.images.data_reader import open_data
from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.observers import MOMENTUM, Seeing
from eightfold.calib.ranges import Method, TensorRange
from eightfold.calib.thresholds import full_range, range_of
from eightfold.defaults import CALIBRATION_BATCH, EQUALIZATION_METHOD, PERCENTILE
from eightfold.files import PathLike
from eightfold.onnx_graph.graph import ModelGraph, read_graph

BINS = 1024  # on either side of zero, per channel: 16 KiB each, and several bins to each of 256 levels
Floats = npt.NDArray[np.floating[Any]]
Vector = npt.NDArray[np.float64]


class ChannelObserver(Seeing, Protocol):
    """Sees values, and gives a range per channel in the end."""

    def ranges(self) -> tuple[TensorRange, ...]:
        """The range of every channel."""


def by_channel(values: Floats) -> Floats:
    """(channels, rows, positions)."""
    rows = values.reshape(values.shape[0], values.shape[1] if values.ndim > 1 else 1, -1)
    return rows.transpose(1, 0, 2)


@dataclass
class ChannelMinMax:
    """The extremes of every channel."""

    low: Vector | None = None
    high: Vector | None = None

    def see(self, values: Floats) -> None:
        """Widen each channel's range by `values` (N, C, ...)."""
        parts = by_channel(values)
        low, high = parts.min(axis=(1, 2)).astype(np.float64), parts.max(axis=(1, 2)).astype(np.float64)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def extremes(self) -> list[tuple[float, float]]:
        """(min, max) of each channel."""
        if self.low is None or self.high is None:
            raise ValueError("the extremes of nothing")
        return list(zip(self.low.tolist(), self.high.tolist(), strict=True))

    def ranges(self) -> tuple[TensorRange, ...]:
        """The full range of each channel."""
        return tuple(full_range(low, high) for low, high in self.extremes())


@dataclass
class ChannelMovingAverage:
    """Exponential moving averages of every row's extremes, per channel."""

    momentum: float = MOMENTUM
    low: Vector | None = None
    high: Vector | None = None
    seen: ChannelMinMax = field(default_factory=ChannelMinMax)

    def see(self, values: Floats) -> None:
        """Move each channel's averages by the extremes of every image in `values`."""
        self.seen.see(values)
        parts = by_channel(values)
        for low, high in zip(parts.min(axis=2).T, parts.max(axis=2).T, strict=True):
            self.low, self.high = self._moved(self.low, low), self._moved(self.high, high)

    def _moved(self, average: Vector | None, values: Floats) -> Vector:
        exact = values.astype(np.float64)
        return exact if average is None else self.momentum * average + (1 - self.momentum) * exact

    def ranges(self) -> tuple[TensorRange, ...]:
        """The averaged range of each channel."""
        if self.low is None or self.high is None:
            raise ValueError("the average of nothing")
        averages = zip(self.low.tolist(), self.high.tolist(), strict=True)
        return tuple(
            TensorRange(min=seen[0], max=seen[1], low=low, high=high, threshold=max(-low, high, 0.0))
            for seen, (low, high) in zip(self.seen.extremes(), averages, strict=True)
        )


@dataclass
class ChannelHistograms:
    """A histogram for every channel, from which `method` chooses the ranges. `counts` is (channels, 2 * BINS)."""

    method: Method
    percentile: float = PERCENTILE
    counts: npt.NDArray[np.int64] | None = None
    exponents: npt.NDArray[np.int64] | None = None
    seen: ChannelMinMax = field(default_factory=ChannelMinMax)

    def see(self, values: Floats) -> None:
        """Add `values` to each channel's histogram."""
        self.seen.see(values)
        parts = by_channel(values).reshape(values.shape[1] if values.ndim > 1 else 1, -1)
        counts, exponents = self._covering(np.maximum(parts.max(axis=1), -parts.min(axis=1)))
        # As in Histogram: the width of a bin is a power of two, so that a value's bin is exact in float32.
        bins = np.floor(parts * (BINS / 2.0**exponents).astype(np.float32)[:, None]).astype(np.int64)
        bins += BINS + 2 * BINS * np.arange(len(parts))[:, None]
        counts += np.bincount(bins.reshape(-1), minlength=counts.size).reshape(counts.shape)

    def _covering(self, reach: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Counts and exponents, widened where a channel reaches further than before."""
        if self.counts is None or self.exponents is None:
            self.counts = np.zeros((len(reach), 2 * BINS), np.int64)
            self.exponents = np.full(len(reach), MIN_EXPONENT)
        needed = np.where(reach > 0, np.frexp(reach)[1], MIN_EXPONENT)
        for channel in np.flatnonzero(needed > self.exponents):
            wider = Histogram(int(self.exponents[channel]), self.counts[channel])
            wider.widen(int(needed[channel]))
            self.counts[channel], self.exponents[channel] = wider.counts, wider.exponent
        return self.counts, self.exponents

    def ranges(self) -> tuple[TensorRange, ...]:
        """The range of each channel by the method."""
        if self.counts is None or self.exponents is None:
            raise ValueError("the range of nothing")
        parts = zip(self.exponents.tolist(), self.counts, self.seen.extremes(), strict=True)
        histograms = (Histogram(exponent, counts, *extremes) for exponent, counts, extremes in parts)
        return tuple(range_of(histogram, self.method, percentile=self.percentile) for histogram in histograms)


def make_channel_observer(method: Method, *, percentile: float = PERCENTILE) -> ChannelObserver:
    """A new observer per channel for a calibration method."""
    if method == "minmax":
        return ChannelMinMax()
    return ChannelMovingAverage() if method == "moving-average" else ChannelHistograms(method, percentile)


def channel_ranges(
    onnx_path: PathLike,
    images: ImageSource,
    preprocess: Preprocess | None,
    *,
    method: Method = EQUALIZATION_METHOD,
    batch: int = CALIBRATION_BATCH,
    percentile: float = PERCENTILE,
    threads: int = 0,
    tensors: Collection[str] | None = None,
) -> dict[str, tuple[TensorRange, ...]]:
    """The range of every channel of a network's activations. Memory does not grow with the number of images.

    Args:
        onnx_path, images, preprocess, method, batch, percentile, threads: as for `calibrate`.
        tensors: the activations wanted; None for all, at 16 KiB of memory per channel for histogram methods.

    Returns:
        tensor name -> its channels' ranges. Each holds what an unsigned type should cover (`low`, `high`) and what a
        signed one should (`threshold`).

    Raises:
        CalibrationError, ImageError: as `calibrate`.
    """
    options = CalibrationOptions(method, percentile, batch, threads)
    return ranges_of_channels(read_graph(onnx_path), images, preprocess, options, tensors)


def ranges_of_channels(
    graph: ModelGraph,
    images: ImageSource,
    preprocess: Preprocess | None,
    options: CalibrationOptions,
    tensors: Collection[str] | None = None,
) -> dict[str, tuple[TensorRange, ...]]:
    """`channel_ranges` for a graph that is loaded already."""
    watched = [name for name in graph.observed if len(graph.types[name][1]) > 1]
    names = watched if tensors is None else [name for name in watched if name in tensors]
    observers = {name: make_channel_observer(options.method, percentile=options.percentile) for name in names}
    if observers:
        observe(graph, open_data(images, preprocess, graph.input_shape[1:], graph.input_dtype), observers, options)
    return {name: observer.ranges() for name, observer in observers.items()}
