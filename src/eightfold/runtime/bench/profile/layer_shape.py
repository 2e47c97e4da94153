"""Shape of a layer whose latency is measured over its widths. Pure data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from eightfold.errors import UsageError
from eightfold.values import Frozen

LayerKind = Literal[
    "conv", "conv_transpose", "depthwise", "linear", "max_pool", "average_pool", "global_pool", "add", "mul", "scale",
    "concat", "resize", "activation", "norm",
]  # fmt: skip
# Kinds whose latency depends on the number of input and of output channels; of the others, both are one number.
TWO_SIDED = frozenset({"conv", "conv_transpose", "linear"})
# Activations that a micro-graph knows; the layer runs them in the same kernel where the back end fuses them.
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "gelu")


class LayerShape(Frozen):
    """Everything that decides a layer's latency on a device, except its widths.

    Layers of one shape share a table, whatever network they come from.
    """

    kind: LayerKind
    batch: int = Field(default=1, ge=1)
    size: tuple[int, ...] = Field(default=(), description="height and width of the input; rows of a linear layer")
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = Field(default=(), description="of a resize: the factors")
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = Field(default=1, ge=1, description="of a convolution; a depthwise one has as many as channels")
    activation: str = Field(default="", description="what follows in the same kernel: relu, silu, ...")
    residual: bool = Field(default=False, description="another input is added to the output before the activation")
    parts: int = Field(default=1, ge=1, description="inputs of an addition or a concatenation")

    @property
    def two_sided(self) -> bool:
        """True if input and output widths are two numbers."""
        return self.kind in TWO_SIDED

    @property
    def key(self) -> str:
        """A short text that tells shapes apart, for files and tables."""
        parts = [self.kind, f"b{self.batch}", "x".join(map(str, self.size))]
        for letter, values in (("k", self.kernel), ("s", self.stride), ("p", self.padding), ("d", self.dilation)):
            if values and any(value != (letter in "sd") for value in values):
                parts.append(letter + "x".join(map(str, values)))
        parts += [f"g{self.groups}"] if self.groups > 1 else []
        parts += [f"n{self.parts}"] if self.parts > 1 else []
        parts += [self.activation] if self.activation else []
        parts += ["+"] if self.residual else []
        return "-".join(part for part in parts if part)

    def output_size(self) -> tuple[int, ...]:
        """Height and width of the output.

        >>> LayerShape(kind="conv", size=(8, 8), kernel=(3, 3), stride=(2, 2), padding=(1, 1)).output_size()
        (4, 4)
        """
        if self.kind == "resize":
            return tuple(size * factor for size, factor in zip(self.size, self.stride, strict=True))
        if self.kind == "global_pool":
            return (1,) * len(self.size)
        if not self.kernel:
            return self.size
        rank = len(self.size)
        strides, pads, dilations = self.stride or (1,) * rank, self.padding or (0,) * rank, self.dilation or (1,) * rank
        sizes = zip(self.size, self.kernel, strides, pads, dilations, strict=True)
        if self.kind == "conv_transpose":
            return tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in sizes)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)

    def macs(self, inputs: int, outputs: int) -> float:
        """Multiply-accumulates at these widths; for kinds without products, the values that are written."""
        positions = self.batch * _product(self.output_size())
        if self.kind == "conv_transpose":
            return self.batch * _product(self.size) * inputs * outputs * _product(self.kernel) / self.groups
        if self.kind in ("conv", "linear"):
            return positions * inputs * outputs * _product(self.kernel) / self.groups
        return positions * outputs * _product(self.kernel)

    def values(self, inputs: int, outputs: int) -> tuple[float, float]:
        """Numbers that are moved: activations in and out, and weights."""
        read = self.batch * _product(self.size) * inputs * (self.parts if self.kind in ("add", "mul") else 1)
        written = self.batch * _product(self.output_size()) * outputs
        weights = 0.0
        if self.two_sided:
            weights = inputs * outputs * _product(self.kernel) / self.groups
        elif self.kind == "depthwise":
            weights = outputs * _product(self.kernel)
        return read + written * (2 if self.residual else 1), weights


def _product(values: tuple[int, ...]) -> float:
    found = 1.0
    for value in values:
        found *= value
    return found


def require_known(shape: LayerShape) -> None:
    """Raise UsageError for an activation that no micro-graph has."""
    if shape.activation and shape.activation not in ACTIVATIONS:
        raise UsageError(f"activation {shape.activation!r} of a layer", allowed=", ".join(ACTIVATIONS))
