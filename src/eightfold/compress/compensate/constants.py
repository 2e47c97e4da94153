"""Constants in place of removed channels: where they come from (a norm's beta, or the mean over images), and folding
them into the layers that used the channels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from eightfold.compress.compensate.consumers import Consumer
from eightfold.compress.layerwise.layerwise_forward import PausedCall, layer_calls
from eightfold.compress.least_squares.patches import Geometry, weight_matrix
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.trace.groups import Member
from eightfold.compress.types import Args


@dataclass(frozen=True)
class ConstantInput:
    """The value taken for each input channel of a layer, float64 [C_in]."""

    value: Tensor
    geometry: Geometry


Constants = Mapping[str, ConstantInput]
"""Weight name -> its input constants; the mean over its calls where a layer runs several times."""


def mean_inputs(original: nn.Module, batches: Sequence[Args]) -> Constants:
    """Mean of every layer's input channels over all images and positions."""
    calls = (call for args in batches for call in layer_calls(original, args))
    return _averaged(calls, _spatial_mean)


def constants_from_beta(original: nn.Module, plan: PrunePlan, args: Args) -> Constants:
    """Constants of the removed channels when all their norm scales and producing weights are zero.

    Whatever lies between (activations, additions, concatenations, pooling) turns the norm's beta or the bias into the
    constant by running, at the centre of the map, where zero padding is not seen.
    """
    return _averaged(layer_calls(silenced(original, plan), args), _centre)


def _averaged(calls: Iterator[PausedCall], constant_of: Callable[[Tensor], Tensor]) -> Constants:
    sums: dict[str, tuple[Tensor, Geometry, int]] = {}
    for call in calls:
        value = constant_of(call.input)
        total, _, count = sums.get(call.weight, (torch.zeros_like(value), call.geometry, 0))
        sums[call.weight] = total + value, call.geometry, count + 1
    return {weight: ConstantInput(total / count, geometry) for weight, (total, geometry, count) in sums.items()}


def _spatial_mean(x: Tensor) -> Tensor:
    return x.double().flatten(2).mean((0, 2)) if x.dim() > 2 else x.double().mean(0)


def _centre(x: Tensor) -> Tensor:
    for size in x.shape[2:]:
        x = x.select(2, size // 2)
    return x.double().mean(0)


def silenced(original: nn.Module, plan: PrunePlan) -> nn.Module:
    """A copy of `original` whose removed channels are constant: norm scales and producing weights zero, shifts kept."""
    copied = copy.deepcopy(original)
    tensors = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    for group in plan.groups:
        kept = np.asarray(group.kept, dtype=np.int64)
        for member in group.members:
            if _makes_channels(member, plan.shapes):
                gone = torch.from_numpy(member.removed(kept))
                tensors[member.tensor].data.index_fill_(member.dim, gone, 0.0)
    return copied


def _makes_channels(member: Member, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """A producer's weight (its bias stays), or the scale of a batch norm."""
    if member.role == "producer":
        return len(shapes[member.tensor]) > 1
    module, _, name = member.tensor.rpartition(".")
    return name == "weight" and f"{module}.running_mean" in shapes


def fold_constants(
    pruned: nn.Module, original: nn.Module, sites: Mapping[str, Consumer], constants: Constants
) -> tuple[str, ...]:
    """Add to each layer's sink what its removed inputs would have given, in place; returns the weights so treated.

    A transposed convolution with a stride meets different taps at different positions: their average is added.
    """
    before, tensors = original.state_dict(), {**dict(pruned.named_parameters()), **dict(pruned.named_buffers())}
    folded = []
    for weight, site in sites.items():
        if site.sink is None or not len(site.removed_inputs) or weight not in constants:
            continue
        offset = _offset(before[weight], constants[weight], site)[torch.from_numpy(site.kept_outputs)]
        sink = tensors[site.sink.tensor].data
        sink.add_((site.sink.sign * offset).to(sink.dtype).reshape(sink.shape))
        folded.append(weight)
    return tuple(folded)


def _offset(weight: Tensor, constant: ConstantInput, site: Consumer) -> Tensor:
    """float64 [C_out], in the original's channels."""
    geometry = constant.geometry
    gone = torch.from_numpy(site.removed_inputs)
    lost = torch.zeros_like(constant.value).index_copy_(0, gone, constant.value[gone])
    rows = lost.reshape(geometry.groups, 1, -1).repeat_interleave(prod(geometry.kernel), dim=2)
    offset = (rows @ weight_matrix(weight.double(), geometry)).flatten()
    return offset / prod(geometry.stride) if geometry.transposed else offset
