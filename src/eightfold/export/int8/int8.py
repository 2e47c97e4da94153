"""From real ranges to 8-bit scales and zero points, and from float weights to integers. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eightfold.calib.ranges import TensorRange

Floats = npt.NDArray[np.floating[Any]]
MAX_BIAS = 2.0**30  # keeps an int32 bias, and what is added to it, from overflowing
TINY = 1e-12  # the least scale: below it the product of two scales leaves float32


@dataclass(frozen=True)
class ActivationType:
    """real = (integer - zero_point) * scale, for integers of `dtype`."""

    scale: float
    zero_point: int
    dtype: Literal["uint8", "int8"]


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """`values` int8 in [-127, 127]; `scale` float32, one entry, or one per index of `axis`."""

    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    axis: int | None

    def real(self) -> npt.NDArray[np.float32]:
        """The real values of the integers."""
        shape = [1] * self.values.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return self.values * self.scale.reshape(shape)

    def padded(self, inputs: int) -> QuantizedWeight:
        """With zeros for `inputs` more input channels on axis 1, as in convolutions."""
        if not inputs:
            return self
        widths = [(0, inputs if i == 1 else 0) for i in range(self.values.ndim)]
        return replace(self, values=np.pad(self.values, widths))


def activation_type(found: TensorRange, *, dtype: Literal["uint8", "int8"], symmetric: bool) -> ActivationType:
    """Scale and zero point that cover a range; 0.0 is always exact."""
    if symmetric:
        return ActivationType(_scale(found.threshold / 127), 0, dtype)
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    scale = _scale((high - low) / 255)
    lowest = 0 if dtype == "uint8" else -128
    return ActivationType(scale, int(np.clip(round(lowest - low / scale), lowest, lowest + 255)), dtype)


def _scale(value: float) -> float:
    """As float32 holds it; a tensor that is all zeros gets 1."""
    return float(np.float32(max(value, TINY))) if value > 0 else 1.0


def quantize_weight(
    weight: Floats, axis: int | None, *, bias: Floats | None = None, input_scale: float = 1.0, levels: int = 127
) -> QuantizedWeight:
    """Symmetric int8, rounded half to even.

    Args:
        weight: float weights.
        axis: the output channels' axis, or None for one scale.
        bias: where given, scales are kept large enough for `bias / (input_scale * scale)` to fit into int32.
        input_scale: scale of the activations that the weights are multiplied with.
        levels: the largest magnitude of an integer.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    reach = np.abs(weight).max(axis=others, keepdims=True) if axis is not None else np.abs(weight).max(keepdims=True)
    scale = np.maximum(reach.astype(np.float64) / levels, TINY)
    if bias is not None:
        needed = np.abs(bias.astype(np.float64)) / (input_scale * MAX_BIAS)
        scale = np.maximum(scale, needed.reshape(scale.shape) if axis is not None else needed.max())
    scale = scale.astype(np.float32)
    values = np.clip(np.rint(weight / scale), -levels, levels).astype(np.int8)
    return QuantizedWeight(values, scale.reshape(-1) if axis is not None else scale.reshape(()), axis)


def quantize_bias(bias: Floats, input_scale: float, weight_scale: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """int32 at the scale of the product."""
    scaled = np.rint(bias.astype(np.float64) / (np.float64(input_scale) * weight_scale.astype(np.float64)))
    return np.clip(scaled, -(2**31) + 1, 2**31 - 1).astype(np.int32)
