"""The small graphs that calibration's tests use, for quantization's."""

from __future__ import annotations

from tests.calib.conftest import residual_net, rows

__all__ = ["residual_net", "rows"]
