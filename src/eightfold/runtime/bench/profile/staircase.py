"""Finds a device's width step: the number of channels that its kernels process as one block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
# A larger step must explain the times as well as a smaller one, give or take this factor of the squared error.
TOLERANCE = 1.5
NOISE = 0.02  # of the times: errors below it tell nothing apart


def width_step(widths: Sequence[int], times: Sequence[float], steps: Sequence[int] = STEPS) -> int:
    """The largest step s for which latency is a straight line over the widths rounded up to s.

    Args:
        widths: ascending, such as 64, 72, ..., 136.
        times: of the same layer at each.
        steps: candidates.

    >>> width_step([64, 72, 80, 88, 96, 104], [4.0, 5.0, 5.0, 6.0, 6.0, 7.0])
    16
    """
    measured = np.asarray(times, dtype=np.float64)
    floor = (NOISE * measured.mean()) ** 2
    errors = {step: max(_error(widths, measured, step), floor) for step in steps}
    least = min(errors.values())
    return max(step for step, error in errors.items() if error <= TOLERANCE * least)


def _error(widths: Sequence[int], times: np.ndarray, step: int) -> float:
    """Mean squared error of the best line over the rounded widths; infinite where all round to few blocks."""
    blocks = np.ceil(np.asarray(widths) / step) * step
    if len(np.unique(blocks)) < 3:
        return np.inf
    design = np.stack([np.ones(len(blocks)), blocks], axis=1)
    fit, *_ = np.linalg.lstsq(design, times, rcond=None)
    return float(np.mean((design @ fit - times) ** 2))
