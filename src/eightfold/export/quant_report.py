"""What `quantize` did, for people and for the manifest."""

from __future__ import annotations

from pydantic import Field

from eightfold.export.int8_speed import Form, Int8Speed
from eightfold.values import Frozen


class QuantReport(Frozen):
    """What `quantize` did.

    Args:
        target: the target asked for.
        method: how the ranges were chosen.
        quantized: labels of the nodes that run on integers.
        kept_float: label of a node that could have been quantized -> why it was not.
        bias_shifts: layer -> root mean square of what bias correction added to its biases.
        rounding: layer -> expected squared error of its outputs after AdaRound, as a share of rounding to nearest.
        form: "qdq" for Q/DQ pairs, "qoperator" for QLinear operators.
        speed: against FP32, where it was measured.
    """

    target: str
    method: str
    quantized: tuple[str, ...]
    kept_float: dict[str, str]
    bias_shifts: dict[str, float] = Field(default_factory=dict)
    rounding: dict[str, float] = Field(default_factory=dict)
    form: Form = "qdq"
    speed: Int8Speed | None = None

    def describe(self) -> str:
        lines = [f"{len(self.quantized)} layers in INT8 for {self.target}, {len(self.kept_float)} kept in float"]
        lines += [f"  {name}: {reason}" for name, reason in self.kept_float.items()]
        if self.bias_shifts:
            name = max(self.bias_shifts, key=lambda key: self.bias_shifts[key])
            lines.append(
                f"  {len(self.bias_shifts)} biases corrected, the most: {name} by {self.bias_shifts[name]:.3g}"
            )
        if self.rounding:
            mean = sum(self.rounding.values()) / len(self.rounding)
            lines.append(
                f"  {len(self.rounding)} layers rounded adaptively: {mean:.0%} of the error of rounding to nearest"
            )
        if self.speed:
            lines.append(self.speed.describe())
        return "\n".join(lines)
