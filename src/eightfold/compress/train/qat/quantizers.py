"""Quantizers of weights and activations: affine per channel, LSQ, DoReFa and power-of-two; and their registry."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eightfold.calib.ranges import TensorRange
from eightfold.compress.train.qat.rounding import Integers, fake_quantize, softened, straight_round
from eightfold.errors import UnknownNameError, UsageError

TINY = 1e-12
BITS = range(2, 9)
MOMENTUM = 0.1  # of ranges that are observed while training; Jacob et al. 2018, arXiv:1712.05877, section 3.1


def rows(weight: Tensor) -> Tensor:
    """[channels, rest]."""
    return weight.detach().flatten(1)


def column(values: Tensor, weight: Tensor) -> Tensor:
    """Values [channels] in a shape that broadcasts over the weight."""
    return values.reshape(-1, *[1] * (weight.dim() - 1)) if values.numel() > 1 else values


class WeightQuantizer(nn.Module):
    """Rounds a weight to integers of so many bits, symmetric, with one scale per output channel or one for all."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    @property
    def grid(self) -> Integers:
        """The integers of the weight."""
        return Integers.weights(self.bits)

    @abstractmethod
    def scale(self, weight: Tensor) -> Tensor:
        """[channels] or [1]."""

    def real(self, weight: Tensor) -> Tensor:
        """The values to round: the weight itself, unless a method transforms it."""
        return weight

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its grid."""
        return fake_quantize(self.real(weight), column(self.scale(weight), weight), torch.zeros(()), self.grid)


class ChannelMaximum(WeightQuantizer):
    """The largest absolute value of each output channel is the last integer (Krishnamoorthi 2018, arXiv:1806.08342)."""

    def scale(self, weight: Tensor) -> Tensor:
        return rows(weight).abs().amax(1).clamp(min=TINY) / self.grid.high


class LearnedStep(WeightQuantizer):
    """LSQ: the scale of each channel is a parameter (Esser et al. 2020, arXiv:1902.08153), at first 2 mean|w| /
    sqrt(largest integer)."""

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__(bits)
        first = 2 * rows(weight).abs().mean(1) / math.sqrt(self.grid.high)
        self.step = nn.Parameter(first.clamp(min=TINY))

    def scale(self, weight: Tensor) -> Tensor:
        return softened(self.step, weight[0].numel(), self.grid).abs().clamp(min=TINY)


class Tanh(WeightQuantizer):
    """DoReFa: tanh(w) / max |tanh(w)| on a grid over [-1, 1] (Zhou et al. 2016, arXiv:1606.06160, equation 9).

    Two things differ from the paper. The grid is symmetric, with an exact zero, so that Q/DQ graphs can say it; and
    the result is scaled back to the weight's largest value, so that a trained network keeps its magnitudes.
    """

    def scale(self, weight: Tensor) -> Tensor:
        return weight.detach().abs().amax().clamp(min=TINY).reshape(1) / self.grid.high

    def real(self, weight: Tensor) -> Tensor:
        bent = torch.tanh(weight)
        return bent / bent.detach().abs().amax().clamp(min=TINY) * weight.detach().abs().amax()


class ShiftedWeight(WeightQuantizer):
    """One scale for the tensor, a power of two: the one below or above that which covers the largest value, whichever
    has the smaller squared error. A multiplication by it is a shift."""

    def scale(self, weight: Tensor) -> Tensor:
        values = weight.detach()
        exact = torch.log2(values.abs().amax().clamp(min=TINY) / self.grid.high)
        return nearer_power(values, exact, torch.zeros(()), self.grid)


def nearer_power(values: Tensor, exact: Tensor, zero: Tensor, grid: Integers) -> Tensor:
    """2^floor(exact) or 2^ceil(exact), whichever rounds `values` with less squared error, [1]."""
    choices = [torch.exp2(torch.floor(exact)).reshape(1), torch.exp2(torch.ceil(exact)).reshape(1)]
    errors = [float((fake_quantize(values, choice, zero, grid) - values).square().sum()) for choice in choices]
    return choices[int(errors[1] < errors[0])]


@dataclass(frozen=True)
class ActivationForm:
    """Form of the integers of a layer's input.

    Attributes:
        bits: 2 to 8.
        signed: int8 rather than uint8.
        symmetric: the zero point is 0.
    """

    bits: int
    signed: bool
    symmetric: bool

    @property
    def grid(self) -> Integers:
        """The integers."""
        return Integers.signed(self.bits) if self.signed else Integers.unsigned(self.bits)


class ActivationQuantizer(nn.Module):
    """Rounds a layer's input with one scale and zero point.

    Without a range it observes batches while training: their extremes, averaged. In evaluation, and once it is
    `frozen`, it keeps what it has.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, form: ActivationForm, found: TensorRange | None) -> None:
        super().__init__()
        self.form, self.frozen = form, found is not None
        bounds = (0.0, 0.0) if found is None else _bounds(found, form)
        self.register_buffer("low", torch.tensor(bounds[0]))
        self.register_buffer("high", torch.tensor(bounds[1]))
        self.register_buffer("seen", torch.tensor(found is not None))

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        """Both scalars; the zero point is a whole number inside the grid."""
        grid = self.form.grid
        if self.form.symmetric:
            scale = torch.maximum(-self.low, self.high).clamp(min=TINY) / max(grid.high, 1)
            return scale, torch.zeros_like(scale)
        scale = (self.high - self.low).clamp(min=TINY) / (grid.high - grid.low)
        return scale, torch.round(grid.low - self.low / scale).clamp(grid.low, grid.high)

    def forward(self, x: Tensor) -> Tensor:
        """The input on its grid."""
        if self.training and not self.frozen:
            self._observe(x)
        if not bool(self.seen):
            return x
        scale, zero = self.scale_and_zero()
        return fake_quantize(x, scale, zero, self.form.grid)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        low, high = x.amin().clamp(max=0).float(), x.amax().clamp(min=0).float()
        share = MOMENTUM if bool(self.seen) else 1.0
        self.low.lerp_(low, share)
        self.high.lerp_(high, share)
        self.seen.fill_(True)


def _bounds(found: TensorRange, form: ActivationForm) -> tuple[float, float]:
    if form.symmetric:
        return -found.threshold, found.threshold
    return min(found.low, 0.0), max(found.high, 0.0)


class LearnedActivation(ActivationQuantizer):
    """LSQ: the scale is a parameter; the zero point stays where the first range put it."""

    def __init__(self, form: ActivationForm, found: TensorRange | None) -> None:
        super().__init__(form, found)
        self.step = nn.Parameter(torch.zeros(()))
        self.register_buffer("zero", torch.zeros(()))
        self.count = 1
        self._set()

    def _set(self) -> None:
        scale, zero = super().scale_and_zero()
        with torch.no_grad():
            self.step.copy_(scale)
            self.get_buffer("zero").copy_(zero)

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        return softened(self.step, self.count, self.form.grid).abs().clamp(min=TINY), self.get_buffer("zero")

    def forward(self, x: Tensor) -> Tensor:
        """The input on its grid; the first batch sets the scale where no range was given."""
        self.count = x[0].numel()
        if not bool(self.seen):
            if not self.training:
                return x
            self._observe(x)
            self._set()
        scale, zero = self.scale_and_zero()
        return fake_quantize(x, scale, zero, self.form.grid)


class ClippedActivation(ActivationQuantizer):
    """DoReFa: the input clipped to [0, 1], here to [0, largest], which a trained network has in place of 1. Inputs that
    can be negative keep their sign; public code clips those, too, and multiplies by 0.1, which it never takes back."""


class ShiftedActivation(ActivationQuantizer):
    """Power-of-two: symmetric or unsigned, with the scale 2^n that covers the range."""

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        grid = self.form.grid
        reach = torch.maximum(-self.low, self.high) if grid.low < 0 else self.high
        scale = torch.exp2(torch.ceil(torch.log2(reach.clamp(min=TINY) / max(grid.high, 1)) - 1e-6))
        return scale, torch.zeros_like(scale)


@dataclass(frozen=True)
class Scheme:
    """A method of quantization-aware training.

    Attributes:
        weight: (bits, weight) -> its quantizer.
        activation: (form, range or None) -> quantizer of a layer's input.
        shifts: scales are powers of two, zero points 0, and biases lie on the products' grid.
    """

    weight: Callable[[int, Tensor], WeightQuantizer]
    activation: Callable[[ActivationForm, TensorRange | None], ActivationQuantizer]
    shifts: bool = False


SCHEMES: dict[str, Scheme] = {
    "affine": Scheme(lambda bits, weight: ChannelMaximum(bits), ActivationQuantizer),
    "lsq": Scheme(LearnedStep, LearnedActivation),
    "dorefa": Scheme(lambda bits, weight: Tanh(bits), ClippedActivation),
    "pow2": Scheme(lambda bits, weight: ShiftedWeight(bits), ShiftedActivation, shifts=True),
}


def register_scheme(name: str, scheme: Scheme) -> None:
    """Make a scheme of quantization-aware training known. A name that is taken is refused."""
    if name in SCHEMES:
        raise UsageError(f"the scheme {name!r} exists", allowed="a new name", remedy="choose another name")
    SCHEMES[name] = scheme


def scheme_named(name: str) -> Scheme:
    """Raises UnknownNameError."""
    if name not in SCHEMES:
        raise UnknownNameError.of("scheme of quantization-aware training", name, SCHEMES)
    return SCHEMES[name]


def require_bits(bits: int, name: str) -> None:
    """Raises UsageError outside of 2 to 8."""
    if bits not in BITS:
        raise UsageError(f"{bits} bits of {name}", allowed="2 to 8")


def on_product_grid(bias: Tensor, scale: Tensor) -> Tensor:
    """A bias rounded to multiples of the product of input and weight scales, as an accumulator holds it."""
    return straight_round(bias / scale) * scale
