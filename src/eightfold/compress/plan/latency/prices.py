"""Price of each layer in milliseconds as a function of its widths, fitted to whole networks.

A network takes longer than the sum of its layers: weights come from memory and not from the cache, nodes are scheduled,
inputs are converted. A few measurements of whole networks give a factor for dense layers, one for the others, the time
per megabyte of weights, and a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from eightfold.compress.plan.latency.widths import Counts, NetworkLayer
from eightfold.runtime.bench.profile.layer_shape import LayerShape

LayerTime = Callable[[LayerShape, float, float], float]
Vector = npt.NDArray[np.float64]
# Strength of the prior (factors of 1, nothing else) against one measurement with an error of 100%.
PRIOR = np.array([0.2, 0.2, 0.05, 0.05])
WIDE = 1e6
WHOLE = 2.0


@dataclass(frozen=True)
class PriceFit:
    """Coefficients of the four parts of a network's latency.

    Attributes:
        dense, other: factors of the layers' own times, of those that mix channels and of the others.
        per_megabyte: milliseconds per million weights.
        constant: milliseconds.
        error: largest relative error at the measurements that it was fitted to; nan without any.
    """

    dense: float = 1.0
    other: float = 1.0
    per_megabyte: float = 0.0
    constant: float = 0.0
    error: float = float("nan")


class LayerPrices(Protocol):
    """Anything that a network's layers cost: time, memory or energy."""

    @property
    def layers(self) -> tuple[NetworkLayer, ...]:
        """The layers."""

    @property
    def constant(self) -> float:
        """Costs of no layer."""

    def of_layer(self, layer: NetworkLayer, inputs: float, outputs: float) -> float:
        """Cost of a layer at these widths."""

    def network_ms(self, counts: Counts) -> float:
        """Cost of the network when `counts` channels stay."""


@dataclass(frozen=True)
class WeightedPrices:
    """A weighted sum of prices of the same layers."""

    parts: tuple[tuple[float, LayerPrices], ...]

    @property
    def layers(self) -> tuple[NetworkLayer, ...]:
        return self.parts[0][1].layers

    @property
    def constant(self) -> float:
        return sum(weight * prices.constant for weight, prices in self.parts)

    def of_layer(self, layer: NetworkLayer, inputs: float, outputs: float) -> float:
        """The weighted sum of the layer's costs."""
        return sum(weight * prices.of_layer(layer, inputs, outputs) for weight, prices in self.parts)

    def network_ms(self, counts: Counts) -> float:
        """The weighted sum of the network's costs."""
        return sum(weight * prices.network_ms(counts) for weight, prices in self.parts)


@dataclass(frozen=True)
class Prices:
    """Latency of a network's layers at any widths."""

    layers: tuple[NetworkLayer, ...]
    time: LayerTime
    fit: PriceFit = PriceFit()

    @property
    def constant(self) -> float:
        """Milliseconds of no layer."""
        return self.fit.constant

    def of_layer(self, layer: NetworkLayer, inputs: float, outputs: float) -> float:
        """Milliseconds that a layer adds to the network."""
        factor = self.fit.dense if layer.shape.two_sided else self.fit.other
        weights = layer.shape.values(round(inputs), round(outputs))[1]
        return factor * self.time(layer.shape, inputs, outputs) + self.fit.per_megabyte * weights / WIDE

    def network_ms(self, counts: Counts) -> float:
        """Predicted latency when `counts` channels stay."""
        return self.fit.constant + sum(self.of_layer(layer, *layer.widths(counts)) for layer in self.layers)

    def features(self, counts: Counts) -> Vector:
        """The four parts: dense layers, other layers, millions of weights, 1."""
        parts = np.array([0.0, 0.0, 0.0, 1.0])
        for layer in self.layers:
            widths = layer.widths(counts)
            parts[0 if layer.shape.two_sided else 1] += self.time(layer.shape, *widths)
            parts[2] += layer.shape.values(*map(round, widths))[1] / WIDE
        return parts

    def scaled(self, factor: float) -> Prices:
        """All parts times a factor."""
        fit = self.fit
        dense, other, per_megabyte, constant = (
            factor * part for part in (fit.dense, fit.other, fit.per_megabyte, fit.constant)
        )
        return Prices(self.layers, self.time, PriceFit(dense, other, per_megabyte, constant, fit.error))

    def fitted(self, measured: Sequence[tuple[Counts, float]]) -> Prices:
        """The prices that explain measurements of whole networks best, in relative error, without negative parts.

        Args:
            measured: kept counts and milliseconds of networks, the whole one first, which counts `WHOLE` times: of it
                shares are taken.
        """
        from scipy.optimize import nnls

        features = np.array([self.features(counts) for counts, _ in measured])
        times = np.array([ms for _, ms in measured])
        scale = np.array([1.0, 1.0, times.mean() / max(features[:, 2].mean(), 1e-9), times.mean()])
        rows = features * scale / times[:, None]
        prior = np.diag(PRIOR)
        weights = np.array([WHOLE] + [1.0] * (len(times) - 1))
        wanted = np.concatenate([weights, PRIOR * np.array([1.0, 1.0, 0.0, 0.0])])
        found = nnls(np.concatenate([rows * weights[:, None], prior]), wanted)[0]
        error = float(np.abs(rows @ found - 1).max())
        dense, other, per_megabyte, constant = (found * scale).tolist()
        return Prices(self.layers, self.time, PriceFit(dense, other, per_megabyte, constant, error))


def slowest(prices: LayerPrices, counts: Counts, most: int = 3) -> list[tuple[str, float]]:
    """The layers that take longest at these counts, with their milliseconds."""
    times: Iterable[tuple[str, float]] = (
        (layer.name, prices.of_layer(layer, *layer.widths(counts))) for layer in prices.layers
    )
    return sorted(times, key=lambda item: -item[1])[:most]


@dataclass(frozen=True)
class PriceLimit:
    """A further quantity that a plan stays within: latency on another device, memory, or energy.

    Attributes:
        prices: of the layers, in the unit of `most`.
        floats: of layers that stay in float where the program chooses precisions; `prices` by default.
    """

    prices: LayerPrices
    most: float
    floats: LayerPrices | None = None


@dataclass(frozen=True)
class Mixed:
    """A choice between INT8 and float for some layers.

    Attributes:
        floats: prices of layers that stay in float.
        damage: layer -> change of importance where it is INT8; not positive. Other layers have no choice.
    """

    floats: LayerPrices
    damage: Mapping[str, float]
