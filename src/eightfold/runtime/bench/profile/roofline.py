"""Latency without a device: a roofline of multiply-accumulates and bytes (Williams et al., CACM 52, 2009).

It ranks plans; absolute times are uncertain by `UNCERTAINTY` either way, because no kernel reaches the roof alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eightfold.runtime.bench.profile.grid import Point

UNCERTAINTY = 2.0  # measured times lay between half and twice the roofline's for most layers of convolutional networks
_DENSE = frozenset({"conv", "conv_transpose", "linear"})


@dataclass(frozen=True)
class Roofline:
    """A machine in four numbers.

    Attributes:
        macs_per_ms: of dense layers in float32.
        bytes_per_ms: from and to the caches that activations live in.
        overhead_ms: of each layer.
        block: channels of one vector.
    """

    macs_per_ms: float = 3e7
    bytes_per_ms: float = 1e7
    overhead_ms: float = 0.003
    block: int = 8

    def times(self, points: Sequence[Point], *, int8: bool = False) -> list[float]:
        """Milliseconds of each point."""
        return [self._time(point, 1 if int8 else 4) for point in points]

    def _time(self, point: Point, bytes_per_value: int) -> float:
        shape, inputs, outputs = point
        inputs, outputs = (-(-width // self.block) * self.block for width in (inputs, outputs))
        dense = shape.kind in _DENSE
        speed = self.macs_per_ms * (2.0 if bytes_per_value == 1 and dense else 1.0) / (1 if dense else 8)
        moved = sum(shape.values(inputs, outputs)) * bytes_per_value
        return self.overhead_ms + max(shape.macs(inputs, outputs) / speed, moved / self.bytes_per_ms)
