"""Matching points: layers of the original whose outputs the pruned network should give, found from the trace.

Each point has the channels that stayed, their variance, and a weight: how much the network's outputs change when the
point's output changes by a share of its own spread, estimated with random output directions (Hutchinson 1990).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eightfold.compress.compensate.consumers import Consumer
from eightfold.compress.modules.output_kinds import OutputKinds
from eightfold.compress.train.recover.layer_outputs import LayerOutputs
from eightfold.compress.types import Batches
from eightfold.export.verify.module_runs import evaluating, output_tensors

LEAST_VARIANCE = 1e-2  # of a channel, relative to the layer's mean: dead channels must not dominate
POSITIONS = 400  # of a map that one step compares; others are left out, at random


@dataclass(frozen=True)
class MatchPoint:
    """One layer's output.

    Attributes:
        kept: the original's channels that the pruned network still has, int64 [channels].
        scale: 1 over their variance, [channels].
        weight: of the point's term in the loss; the mean over points is 1.
    """

    name: str
    kept: Tensor
    scale: Tensor
    weight: float


def points_of(
    original: nn.Module,
    consumers: Mapping[str, Consumer],
    batches: Batches,
    kinds: OutputKinds,
    *,
    dependence: float = 0.5,
    seed: int = 0,
) -> tuple[MatchPoint, ...]:
    """Every layer that both networks have, with its weight.

    Args:
        consumers: what each layer of the pruned network kept; layers of removed blocks are left out.
        batches: positional arguments of the original, a few.
        kinds: of its outputs.
        dependence: power of the outputs' dependence on a point that gives its weight; 0: all points weigh the same.
    """
    sums: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    with evaluating(original), _requiring_gradients(original):
        for args in batches:
            for name, found in _measured(original, consumers, args, kinds, generator).items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + found.cpu() / len(batches)
    # Over all batches: a linear layer has one position an image, and a batch may be a single image.
    variances = {name: (square - mean.square()).clamp(min=0) for name, (mean, square, _) in sums.items()}
    weights = {name: float((sums[name][2] * variances[name]).sum()) ** dependence for name in variances}
    mean = sum(weights.values()) / max(len(weights), 1)
    device = next(original.parameters()).device
    return tuple(
        _point(name, consumers[name], variances[name], weights[name] / mean if mean else 1.0, device)
        for name in variances
    )


@contextlib.contextmanager
def _requiring_gradients(model: nn.Module) -> Iterator[None]:
    """Gradients reach every layer's output, also in a network that is frozen."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _point(name: str, consumer: Consumer, variance: Tensor, weight: float, device: torch.device) -> MatchPoint:
    kept = torch.from_numpy(consumer.kept_outputs)
    scale = 1 / (variance[kept] + LEAST_VARIANCE * variance.mean() + 1e-12)
    return MatchPoint(name, kept.to(device), scale.float().to(device), weight)


def _measured(
    original: nn.Module,
    consumers: Mapping[str, Consumer],
    args: tuple[Any, ...],
    kinds: OutputKinds,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Mean, mean square, and energy of the outputs' gradient of each channel of each layer, [3, channels]."""
    with torch.enable_grad(), LayerOutputs(original, consumers) as record:
        outputs = original(*args)
    found = {name: calls for name, calls in record.found.items() if all(call.dim() > 1 for call in calls)}
    gradients = _gradients(outputs, found, kinds, generator)
    return {
        name: torch.stack(
            [
                torch.stack([_by_channel(call).mean(1) for call in calls]).mean(0),
                torch.stack([_by_channel(call).square().mean(1) for call in calls]).mean(0),
                _energy(gradients.get(name, ()), calls[0]),
            ]
        )
        for name, calls in found.items()
    }


def _energy(slopes: Sequence[Tensor], output: Tensor) -> Tensor:
    total = torch.zeros(output.shape[1], dtype=torch.float64, device=output.device)
    for slope in slopes:
        total += _by_channel(slope).square().sum(1)
    return total


def _by_channel(values: Tensor) -> Tensor:
    """[channels, positions of all images], float64."""
    return values.detach().double().transpose(0, 1).flatten(1)


def _gradients(
    outputs: Any, found: Mapping[str, list[Tensor]], kinds: OutputKinds, generator: torch.Generator
) -> dict[str, tuple[Tensor, ...]]:
    """Gradient of the outputs in a random direction, in each layer's output; none without differentiable outputs."""
    projections = [
        (weight * torch.randn(tensor.shape, generator=generator).to(tensor.device) * tensor.float()).sum()
        for kind, (_, tensor) in zip(kinds.kinds, output_tensors(outputs), strict=True)
        if kind is not None and tensor.requires_grad
        for weight in [kind.importance(tensor.detach())]
    ]
    reachable = [(name, call) for name, calls in found.items() for call in calls if call.requires_grad]
    if not projections or not reachable:
        return {}
    total = torch.stack(projections).sum()
    slopes = torch.autograd.grad(total, [call for _, call in reachable], allow_unused=True)
    gradients: dict[str, tuple[Tensor, ...]] = {}
    for (name, _), slope in zip(reachable, slopes, strict=True):
        if slope is not None:
            gradients[name] = (*gradients.get(name, ()), slope)
    return gradients


def mismatch(points: Sequence[MatchPoint], wanted: LayerOutputs, seen: LayerOutputs) -> Tensor:
    """Weighted mean over points of the squared difference in units of the original's variance.

    Large maps are compared at a random grid of positions, drawn from torch's generator.
    """
    terms = []
    for point in points:
        for a, b in zip(wanted.found.get(point.name, []), seen.found.get(point.name, []), strict=False):
            if a.shape[0] == b.shape[0] and a.shape[2:] == b.shape[2:]:
                grid = _grid(a.shape[2:])
                apart = (a[grid].index_select(1, point.kept).float() - b[grid].float()).square()
                terms.append(point.weight * (apart.transpose(0, 1).flatten(1).mean(1) * point.scale).mean())
    return torch.stack(terms).sum() / max(len(terms), 1)


def _grid(sizes: Sequence[int]) -> tuple[slice, ...]:
    total = 1
    for size in sizes:
        total *= size
    step = max(1, int((total / POSITIONS) ** (1 / max(len(sizes), 1))))
    starts = torch.randint(step, (len(sizes),)).tolist()
    return (slice(None), slice(None), *(slice(start, None, step) for start in starts))
