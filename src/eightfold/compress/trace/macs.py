"""Parameters and multiply-accumulates."""

from __future__ import annotations

from torch import nn

from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs


def count_parameters(model: nn.Module) -> int:
    """Number of values in all parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example_inputs: ExampleInputs) -> int:
    """Multiply-accumulates of every convolution and linear layer for `example_inputs`.

    Half of what `torch.utils.flop_counter` counts for the same operators; other matrix products are left out.
    """
    return sum(layer.macs for layer in trace(model, example_inputs).layers)
