"""Errors of a matte against the true one: SAD, MAD, MSE, and MAD in the unknown region.

As the matting benchmarks define them (Rhemann et al., CVPR 2009): over all pixels, alpha in 0..1; SAD in thousands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Alpha = NDArray[np.float32]
UNKNOWN = 0.5
# Share of the image's shorter side within which of a boundary a pixel counts as unknown.
BAND = 0.03


@dataclass(frozen=True)
class MattingErrors:
    """Less is better.

    Attributes:
        sad: sum of absolute differences / 1000.
        mad: mean absolute difference.
        mse: mean squared difference.
        boundary_mad: mean absolute difference in the unknown region; 0 where there is none.
    """

    sad: float
    mad: float
    mse: float
    boundary_mad: float


def matting_errors(seen: Alpha, true: Alpha) -> MattingErrors:
    """Errors of one matte (height, width) against the true one of the same shape."""
    difference = np.abs(seen.astype(np.float64) - true)
    unknown = trimap(true) == UNKNOWN
    boundary = float(difference[unknown].mean()) if unknown.any() else 0.0
    return MattingErrors(
        float(difference.sum() / 1000), float(difference.mean()), float(np.square(difference).mean()), boundary
    )


def mean_errors(errors: list[MattingErrors]) -> MattingErrors:
    """The mean of each over images."""
    rows = np.array([(each.sad, each.mad, each.mse, each.boundary_mad) for each in errors])
    return MattingErrors(*rows.mean(axis=0).tolist())


def trimap(alpha: Alpha, band: float = BAND) -> Alpha:
    """0 background, 1 foreground, 0.5 unknown: pixels with `band` x the shorter side of one that is not 0, and of one
    that is not 1, in a square around them."""
    reach = max(1, round(band * min(alpha.shape)))
    foreground = _within(alpha > 0, reach)  # some opacity near by
    background = _within(alpha < 1, reach)
    known = np.where(foreground & ~background, np.float32(1), np.float32(0))
    return np.where(foreground & background, np.float32(UNKNOWN), known).astype(np.float32)


def _within(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """True where the mask is true anywhere in the square of 2 * reach + 1 pixels around a pixel."""
    height, width = mask.shape
    sums = np.pad(np.pad(mask, reach).astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    size = 2 * reach + 1
    counts = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    found: NDArray[np.bool_] = counts[:height, :width] > 0
    return found
