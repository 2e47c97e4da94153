"""Criteria on images: activations of channels, and the loss without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from eightfold.compress.criteria.evidence import Array, Evidence, per_channel, stacked_rows
from eightfold.compress.layerwise.layerwise_forward import layer_calls
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.trace.groups import Group
from eightfold.export.verify.module_runs import evaluating


def activation_mean(evidence: Evidence) -> LayerScores:
    """Mean absolute value of each channel where layers read it (Polyak and Wolf 2015, doi:10.1109/ACCESS.2015.2494536;
    Molchanov et al. 2017, arXiv:1611.06440, section 2.2). One row for each layer that reads the group."""
    means: dict[str, Array] = {}
    batches = evidence.need_images("activation_mean")
    with evaluating(evidence.model):
        for args in batches:
            for call in layer_calls(evidence.model, args):
                x = call.input.double().abs()
                mean = (x.flatten(2).mean((0, 2)) if x.dim() > 2 else x.mean(0)).numpy()
                means[call.weight] = means.get(call.weight, 0) + mean / len(batches)
    return {group.id: stacked_rows(_read(evidence, index, means), group.width) for index, group in _free(evidence)}


def _free(evidence: Evidence) -> Iterator[tuple[int, Group]]:
    return ((index, group) for index, group in enumerate(evidence.graph.groups) if not group.frozen)


def _read(evidence: Evidence, index: int, means: Mapping[str, Array]) -> list[Array]:
    """For each layer that reads the group, the means of the group's channels there."""
    width = evidence.graph.groups[index].width
    parts = []
    for layer in {layer.weight: layer for layer in evidence.graph.layers}.values():
        mine = layer.inputs[:, 0] == index
        if layer.weight in means and mine.any():
            channels = layer.inputs[mine, 1]
            total = np.bincount(channels, weights=means[layer.weight][mine], minlength=width)
            parts.append(total / np.maximum(np.bincount(channels, minlength=width), 1))
    return parts


def taylor(evidence: Evidence) -> LayerScores:
    """|sum of weight * gradient| over a filter: the first-order change of the loss when it goes, averaged over batches
    (Molchanov et al. 2019, arXiv:1906.10771, equation 8, with the filter as the group). One row for each producer."""
    return _from_gradients(evidence, "taylor", lambda weight, gradient: weight * gradient)


def hessian_diag(evidence: Evidence) -> LayerScores:
    """Half of weight^2 * H over a filter: the second-order change of the loss (LeCun et al. 1990, Optimal Brain
    Damage), with the diagonal of H as the mean squared gradient of batches (Theis et al. 2018, arXiv:1801.05787)."""
    return _from_gradients(evidence, "hessian_diag", lambda weight, gradient: 0.5 * (weight * gradient) ** 2)


def _from_gradients(evidence: Evidence, criterion: str, contribution: Callable[[Array, Array], Array]) -> LayerScores:
    """|sum of `contribution` over each filter|, averaged over batches."""
    batches, targets, loss = evidence.need_loss(criterion)
    totals: dict[tuple[str, int], Array] = {}
    producers = [m for group in evidence.graph.free for m in evidence.weights(group, "producer")]
    with evaluating(evidence.model), gradients_of(evidence.model):
        for args, target in zip(batches, targets, strict=True):
            evidence.model.zero_grad()
            loss(evidence.model(*args), target).backward()  # type: ignore[no-untyped-call]  # torch left it untyped
            for tensor, dim in {(m.tensor, m.dim) for m in producers}:
                score = np.abs(_sum_but(dim, contribution(evidence.value(tensor), _gradient(evidence, tensor))))
                totals[tensor, dim] = totals.get((tensor, dim), np.zeros_like(score)) + score / len(batches)
    return {group.id: stacked_rows(_scores(evidence, group, totals), group.width) for group in evidence.graph.free}


def _scores(evidence: Evidence, group: Group, totals: Mapping[tuple[str, int], Array]) -> list[Array]:
    members = evidence.weights(group, "producer")
    return [per_channel(m, totals[m.tensor, m.dim], group.width) for m in members]


def _gradient(evidence: Evidence, tensor: str) -> Array:
    gradient = evidence.parameters[tensor].grad
    return np.zeros_like(evidence.value(tensor)) if gradient is None else gradient.double().cpu().numpy()


def _sum_but(dim: int, values: Array) -> Array:
    total: Array = values.sum(axis=tuple(axis for axis in range(values.ndim) if axis != dim))
    return total


@contextmanager
def gradients_of(model: nn.Module) -> Iterator[None]:
    """Gradients for every parameter, none at the start; the parameters' own gradients and flags afterwards."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    for parameter, _, _ in before:
        parameter.requires_grad_(True)
        parameter.grad = None
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter, wanted, gradient in before:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
