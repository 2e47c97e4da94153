"""Scale, mean and standard deviations of a `Preprocess`: faults that no training can have meant."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A mean may lie beyond the largest pixel by rounding only.
SLACK = 1.001
# The standard deviation of values in [0, R] is R / 2 at most; scales to other ranges go through it as well.
WIDEST_STD = 4.0
# A range of scaled pixels from which on they were not brought to [0, 1].
UNSCALED = 128.0


def normalization_fault(
    scale: float, mean: Sequence[float], std: Sequence[float], *, channels: int, color: str, largest: int
) -> str:
    """The fault of `(pixel * scale - mean) / std` in words; empty where there is none.

    Args:
        scale: factor of a pixel.
        mean, std: one entry, or one per channel, in the unit of the scaled pixels.
        channels: of the tensor.
        color: order of the channels, as a message names it.
        largest: the largest value of a pixel.
    """
    if not all(map(math.isfinite, (scale, *mean, *std))):
        return "scale, mean or std is infinite or no number; allowed: finite numbers"
    if scale == 0:
        return "scale is 0, which makes all images alike; allowed: 1/255 and other numbers"
    counts = (_count_fault("mean", mean, channels, color), _count_fault("std", std, channels, color))
    if any(counts):
        return next(filter(None, counts))
    if any(value <= 0 for value in std):
        return f"std is {tuple(std)}; allowed: positive numbers"
    return _unit_fault(scale, mean, std, largest)


def _count_fault(name: str, values: Sequence[float], channels: int, color: str) -> str:
    # Grey had three equal entries by default.
    if len(values) in (1, channels) or (color == "grey" and len(values) == 3 and len(set(values)) == 1):
        return ""
    allowed = "1" if channels == 1 else f"1 or {channels}"
    return f"{name} has {len(values)} entries; allowed: {allowed}, for {color} ({channels} channels)"


def _unit_fault(scale: float, mean: Sequence[float], std: Sequence[float], largest: int) -> str:
    """A mean or deviation in the unit of pixels where these are scaled to [0, 1], or the other way round."""
    reach = abs(scale) * largest
    farthest = max(abs(value) for value in mean)
    if farthest > SLACK * reach:
        return (
            f"mean is {tuple(mean)} and pixels times scale end at {reach:.6g}; allowed: means within it: give means of "
            f"pixels with scale: 1, or divide them by {largest}"
        )
    if max(std) > WIDEST_STD * reach and set(std) != {1.0}:
        return (
            f"std is {tuple(std)} and pixels times scale end at {reach:.6g}; allowed: at most {WIDEST_STD:g} times "
            f"that: give deviations of pixels with scale: 1, or divide them by {largest}"
        )
    if reach >= UNSCALED and 0 < farthest <= 1 and max(std) < 1:
        return (
            f"mean is {tuple(mean)}, std {tuple(std)} and pixels times scale end at {reach:.6g}; allowed: means in "
            f"that unit: these are of pixels in [0, 1], with scale: 1/{largest}"
        )
    return ""
