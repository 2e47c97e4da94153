"""Answers that are pictures: depth, and images that a network made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eightfold.json_types import JsonDict


@dataclass(frozen=True, eq=False)
class Depth:
    """A value for each pixel, in the network's own unit.

    Attributes:
        values: (H, W) float32 over the original image.
    """

    values: NDArray[np.float32]

    def grey(self) -> NDArray[np.uint8]:
        """The values from smallest to largest as 0 to 255; all 0 where they are equal."""
        low, high = float(self.values.min()), float(self.values.max())
        shares = (self.values - low) / (high - low or 1.0)
        return np.asarray(np.floor(shares * 255 + 0.5), np.uint8)

    def to_dict(self) -> JsonDict:
        low, high = float(self.values.min()), float(self.values.max())
        return {"kind": "depth", "size": list(self.values.shape), "least": low, "largest": high}

    def __str__(self) -> str:
        return f"values from {self.values.min():.3g} to {self.values.max():.3g}"


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that the network made.

    Attributes:
        pixels: (H, W, 3) uint8 RGB; `factor` times the original image's size.
        factor: (vertical, horizontal).
    """

    pixels: NDArray[np.uint8]
    factor: tuple[float, float]

    def to_dict(self) -> JsonDict:
        return {"kind": "picture", "size": list(self.pixels.shape[:2]), "factor": list(self.factor)}

    def __str__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"a picture of {width}x{height}"
