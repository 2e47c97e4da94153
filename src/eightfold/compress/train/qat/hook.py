"""Quantization-aware training as a hook of the loop: staged bits, and norms and ranges that freeze late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from eightfold.compress.train.hooks import Hook, Run
from eightfold.compress.train.qat.joins import joins_of
from eightfold.compress.train.qat.layers import QuantizedLayer, quantized_layers
from eightfold.compress.train.qat.quantizers import ActivationQuantizer, LearnedActivation, LearnedStep, require_bits
from eightfold.errors import UsageError


@dataclass(frozen=True)
class Stage:
    """From this share of the run on, so many bits at least. Layers that were prepared with more keep theirs."""

    start: float
    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        require_bits(self.weight_bits, "weights")
        require_bits(self.activation_bits, "activations")


class QuantizationSchedule(Hook):
    """Changes the rounding layers of a model while it trains.

    Args:
        stages: bits over the run, from many to few; empty: as prepared. Layers end with the bits they were prepared
            with.
        freeze_ranges: share of the run after which observed ranges stay.
        freeze_norms: share of the run after which batch norms use and keep their running statistics.
    """

    def __init__(self, stages: Sequence[Stage] = (), *, freeze_ranges: float = 0.5, freeze_norms: float = 0.7) -> None:
        starts = [stage.start for stage in stages]
        if starts != sorted(starts) or any(not 0 <= start < 1 for start in starts):
            raise UsageError(f"stages of bits that start at {starts}", allowed="shares of the run, ascending, below 1")
        self._stages, self._ranges, self._norms = tuple(stages), freeze_ranges, freeze_norms
        self._final: dict[str, tuple[int, int]] = {}

    def on_start(self, run: Run) -> None:
        layers = quantized_layers(run.model)
        self._final = {
            name: (layer.weight_quantizer.bits, layer.input_quantizer.form.bits) for name, layer in layers.items()
        }
        self._apply(run)

    def after_step(self, run: Run) -> None:
        self._apply(run)

    def _apply(self, run: Run) -> None:
        stage = next((each for each in reversed(self._stages) if run.progress >= each.start), None)
        for name, layer in quantized_layers(run.model).items():
            weights, activations = self._final[name]
            if stage is not None:
                set_bits(layer, max(weights, stage.weight_bits), max(activations, stage.activation_bits))
            layer.frozen_norm = layer.norm is not None and run.progress >= self._norms
            self._freeze(run, layer.input_quantizer)
        joins = joins_of(run.model)
        for quantizer in () if joins is None else joins.quantizers.values():
            self._freeze(run, quantizer)

    def _freeze(self, run: Run, quantizer: nn.Module) -> None:
        if isinstance(quantizer, ActivationQuantizer) and run.progress >= self._ranges and bool(quantizer.seen):
            quantizer.frozen = True


@torch.no_grad()
def set_bits(layer: QuantizedLayer, weight_bits: int, activation_bits: int) -> None:
    """Change a layer's bits; learned scales go on covering what they covered."""
    weights, inputs = layer.weight_quantizer, layer.input_quantizer
    if weights.bits != weight_bits:
        before = weights.grid.high
        weights.bits = weight_bits
        if isinstance(weights, LearnedStep):
            weights.step.mul_(before / weights.grid.high)
    if inputs.form.bits != activation_bits:
        old = inputs.form.grid
        inputs.form = replace(inputs.form, bits=activation_bits)
        new = inputs.form.grid
        if isinstance(inputs, LearnedActivation):
            zero = inputs.get_buffer("zero")
            inputs.step.mul_((old.high - old.low) / (new.high - new.low))
            zero.copy_(torch.round((zero - old.low) * (new.high - new.low) / (old.high - old.low) + new.low))
