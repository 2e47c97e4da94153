"""Weight norm, weight = g * v / |v|, in both of torch's forms: what it takes to remove inputs of such a layer.

The norm runs over the inputs, so that the weights of the others would grow. They keep their values when g is divided
by the old norm and multiplied by the new one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm


class NormedWeight(NamedTuple):
    """The two parameters of one weight, by name, and the dimension that the norm leaves."""

    scale: str
    direction: str
    dim: int


def normed_weights(model: nn.Module) -> tuple[NormedWeight, ...]:
    """Every weight of `model` that is under weight norm, by hooks or by parametrization."""
    found = []
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                found.append(NormedWeight(f"{start}{hook.name}_g", f"{start}{hook.name}_v", hook.dim))
        if isinstance(module, nn.utils.parametrize.ParametrizationList) and isinstance(module[0], _WeightNorm):
            found.append(NormedWeight(f"{start}original0", f"{start}original1", int(module[0].dim)))
    return tuple(found)


@contextlib.contextmanager
def weights_kept(model: nn.Module, changed: Collection[str]) -> Iterator[None]:
    """Change tensors inside the block; weights under weight norm that stay keep their values.

    Args:
        changed: names of the tensors that will change.
    """
    parameters = dict(model.named_parameters())
    weights = [weight for weight in normed_weights(model) if weight.direction in changed]
    for weight in weights:
        scale, direction = parameters[weight.scale], parameters[weight.direction]
        scale.data = scale.data / _norm(direction.data, weight.dim)
    yield
    for weight in weights:
        scale, direction = parameters[weight.scale], parameters[weight.direction]
        scale.data = scale.data * _norm(direction.data, weight.dim)


def _norm(direction: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.norm_except_dim(direction, 2, dim)


def weight_of(module: nn.Module) -> torch.Tensor | None:
    """The tensor that has the shape of a layer's weight now. Hooks set `weight` itself at the next call only."""
    weight_norm, spectral_norm = hasattr(module, "weight_g"), hasattr(module, "weight_orig")
    tensor = getattr(module, "weight_v" if weight_norm else "weight_orig" if spectral_norm else "weight", None)
    return tensor if isinstance(tensor, torch.Tensor) else None
