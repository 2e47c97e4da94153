"""Report of `quantize`, for people and for the manifest."""

from __future__ import annotations

from pydantic import Field

from eightfold.export.int8.costly_layers import CostlyLayer
from eightfold.export.int8.decoded_errors import DecodedErrors
from eightfold.export.int8.int8_speed import SHOWN, Form, Int8Speed
from eightfold.export.int8.output_errors import OutputError
from eightfold.export.int8.weight_bits import WeightBits
from eightfold.runtime.bundle.manifest import Step
from eightfold.values import Frozen


class QuantReport(Frozen):
    """Result of `quantize`.

    Args:
        target: the target asked for.
        method: how the ranges were chosen.
        quantized: labels of the nodes that run on integers.
        kept_float: label of a node that could have been quantized -> why it was not.
        bias_shifts: layer -> root mean square of what bias correction added to its biases.
        rounding: layer -> expected squared error of its outputs after AdaRound, as a share of rounding to nearest.
        nearest: layers that AdaRound was asked for and does not handle.
        form: "qdq" for Q/DQ pairs, "qoperator" for QLinear operators.
        weight_bits: of quantized weights.
        speed: against FP32, where it was measured.
        step: what the comparison with the float graph found, as a manifest keeps it.
        images: number of images that the ranges come from; 0 where it is not known.
        errors: of each output on the images, where there were some.
        decoded: how the decoded answers on the images differ, where the task is known.
        losses: words on tensors that another method would serve far better.
        costly: for each output that lost most of its signal, the layer that costs it most.
    """

    target: str
    method: str
    quantized: tuple[str, ...]
    kept_float: dict[str, str]
    bias_shifts: dict[str, float] = Field(default_factory=dict)
    rounding: dict[str, float] = Field(default_factory=dict)
    nearest: tuple[str, ...] = ()
    form: Form = "qdq"
    weight_bits: WeightBits = 8
    speed: Int8Speed | None = None
    step: Step
    images: int = 0
    errors: tuple[OutputError, ...] = ()
    costly: tuple[CostlyLayer, ...] = ()
    losses: tuple[str, ...] = ()
    decoded: DecodedErrors | None = None

    def describe(self) -> str:
        """Text for a person: layers in INT8, layers kept in float, steps, speed."""
        lines = [f"{len(self.quantized)} layers in INT8 for {self.target}, {len(self.kept_float)} kept in float"]
        reasons = dict.fromkeys(self.kept_float.values())
        for reason in reasons:
            names = [name for name, why in self.kept_float.items() if why == reason]
            lines.append(f"  {reason}: {', '.join(names)}")
        noted = (f"  {note}" for note in (*self.notes(), *self.step.notes))
        return "\n".join([*lines, *noted, *self._speed()])

    def notes(self) -> tuple[str, ...]:
        """Steps beside quantizing, one line each."""
        lines = [f"ranges by {self.method} from {self.images} images"] if self.images else []
        if self.weight_bits == 7:
            lines.append("weights of 7 bits, whose products do not overflow without VNNI")
        lines += [*(each.describe() for each in self.costly), *self.losses]
        if self.bias_shifts:
            name = max(self.bias_shifts, key=lambda key: self.bias_shifts[key])
            lines.append(f"{len(self.bias_shifts)} biases corrected, the most: {name} by {self.bias_shifts[name]:.3g}")
        if self.rounding:
            mean = sum(self.rounding.values()) / len(self.rounding)
            lines.append(
                f"{len(self.rounding)} layers rounded adaptively: {mean:.0%} of the error of rounding to nearest"
            )
        if self.nearest:
            lines.append(f"rounded to nearest, as adaround cannot see their inputs: {', '.join(self.nearest)}")
        return tuple(lines)

    def _speed(self) -> list[str]:
        return [self.speed.describe()] if self.speed else []

    def record(self) -> Step:
        """The manifest's entry: comparison, form, layers kept in float, further steps, speed."""
        form = f"written as {SHOWN[self.form]}"
        kept = f"{len(self.kept_float)} layers kept in float" + "".join(f", {name}" for name in self.kept_float)
        notes = (form, kept, *self.notes(), *self._speed(), *self.step.notes)
        return self.step.model_copy(update={"notes": notes})
