"""Default options that the Python API, recipes and the command line share.

Every default that appears in more than one of the three stands here, so that one call gives the same result wherever it
is made. `tests/test_defaults.py` holds the three together.
"""

from __future__ import annotations

from typing import Final

CALIBRATION_METHOD: Final = "mse"
CALIBRATION_IMAGES: Final = 512
CALIBRATION_BATCH: Final = 8
PERCENTILE: Final = 99.99  # of the values, for the method "percentile"
# Equalization balances the extremes of channels (Nagel et al., 2019, section 4.1), whatever the ranges are made by.
EQUALIZATION_METHOD: Final = "minmax"

PRUNING_RULE: Final = "uniform"
PRUNING_SCORE: Final = "l2"
KEEP_RATIO: Final = 0.5
MULTIPLE: Final = 8
COMPENSATION_IMAGES: Final = 256
RECOVERY_MINUTES: Final = 20.0

INT8_TARGET: Final = "cpu-x86"
INT8_FORM: Final = "fastest"
INT8_ROUNDING: Final = "nearest"
BIAS_CORRECTION: Final = "none"
