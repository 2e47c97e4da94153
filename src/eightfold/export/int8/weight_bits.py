"""Bits of quantized weights: 7 where products of 8 overflow.

x86 without VNNI multiplies unsigned activations with signed weights by `vpmaddubsw`, which adds two products in 16 bits
and saturates: 2 * 255 * 127 does not fit, 2 * 255 * 64 does. onnxruntime's documentation names the fault and the way
round (`reduce_range`): https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from eightfold.errors import UsageError
from eightfold.export.targets import Target
from eightfold.runtime.devices.device_cpu import Cpu
from eightfold.runtime.devices.devices import describe_device

WeightBits = Literal[7, 8]
WEIGHT_BITS: tuple[WeightBits, ...] = get_args(WeightBits)
LEVELS: dict[WeightBits, int] = {7: 64, 8: 127}
RUN_HERE = frozenset({"cpu-x86", "openvino"})  # the targets whose products may overflow on this machine


def checked_bits(bits: int | None) -> WeightBits | None:
    """`bits`, or UsageError where no weights have so many."""
    for known in WEIGHT_BITS:
        if bits == known:
            return known
    if bits is not None:
        raise UsageError(f"weights of {bits} bits", allowed="7 or 8, or nothing: 7 where products overflow")
    return None


def with_weight_bits(target: Target, bits: WeightBits | None, cpu: Cpu | None = None) -> Target:
    """The target with weights of so many bits; None: 7 where 8 overflow on `cpu` (this machine's), else its own."""
    if bits is None and target.name in RUN_HERE and products_overflow(cpu or describe_device().cpu):
        bits = 7
    return target if bits is None else replace(target, weight_levels=LEVELS[bits])


def bits_of(target: Target) -> WeightBits:
    """Number of bits of the target's weights."""
    return 7 if target.weight_levels <= LEVELS[7] else 8


def products_overflow(cpu: Cpu) -> bool:
    """True if sums of two 8-bit products saturate: x86 whose features are known and have no 8-bit dot product."""
    return cpu.architecture in ("x86_64", "AMD64") and bool(cpu.features) and not cpu.has_int8_dot
