"""Signal to quantization noise ratios."""

from __future__ import annotations

import numpy as np

NO_ERROR_DB = 200.0  # stands for an infinite ratio


def sqnr_db(signal: float, error: float) -> float:
    """Signal to quantization noise ratio in dB, at most NO_ERROR_DB.

    Args:
        signal, error: energies: sums of squares.
    """
    if error <= 0:
        return NO_ERROR_DB
    ratio = max(max(signal, 1e-300) / error, 1e-300)  # an endless error has none
    return float(np.clip(10 * np.log10(ratio), -NO_ERROR_DB, NO_ERROR_DB))
