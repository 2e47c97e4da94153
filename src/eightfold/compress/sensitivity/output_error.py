"""Measures how far a network's outputs move when one group of channels is narrowed, without labels.

The channels that go are those that the layers reading them can best do without; the readers are re-fitted in closed
form to what stays, from second moments of their inputs that were collected once. Each point then costs the part of a
forward pass over a few images that lies behind these layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eightfold.compress.compensate.consumers import Sink, consumers_of
from eightfold.compress.criteria.evidence import Array, Evidence
from eightfold.compress.criteria.reconstruction import group_losses, layer_moments
from eightfold.compress.criteria.weights import l2
from eightfold.compress.least_squares.moments import cholesky_ridge
from eightfold.compress.least_squares.patches import Geometry, weight_from_matrix
from eightfold.compress.modules.norms import running_means_behind
from eightfold.compress.modules.output_kinds import kinds_of
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import top
from eightfold.compress.sensitivity.partial_runs import Recording
from eightfold.compress.trace.groups import ChannelGraph, Group, Index, LayerCall
from eightfold.compress.types import Batches
from eightfold.export.verify.module_runs import evaluating
from eightfold.progress import track

SHARES = (0.75, 0.4, 0.125)
RIDGE = 1e-4
IMAGES = 16  # whose outputs are compared
MEMORY_BYTES = 1 << 30  # of recorded passes
LEAST_ERROR = 1e-7
FIRST_POWERS = (1.0, 2.0)  # of curves before their first measured point


@dataclass(frozen=True)
class Curve:
    """Output error of a network with one group narrowed; 0 at full width, and growing as fewer channels stay.

    Attributes:
        kept: channels that stay, descending, the full width first.
        errors: 1 minus the agreement with the whole network; see `OutputKind.agreement`.
        order: importance of each channel; the highest stay.
    """

    kept: tuple[int, ...]
    errors: tuple[float, ...]
    order: Array

    def at(self, count: int) -> float:
        """Between measured points, and beyond the last, a power of the share of the channels that goes."""
        gone = [self.kept[0] - each for each in self.kept[1:]]
        if count >= self.kept[0] or not gone:
            return 0.0
        removed, errors = self.kept[0] - count, [max(each, LEAST_ERROR) for each in self.errors[1:]]
        if len(gone) == 1:
            return float(errors[0] * removed / gone[0])
        place = int(np.clip(np.searchsorted(gone, removed), 1, len(gone) - 1))
        power = np.log(errors[place] / errors[place - 1]) / np.log(gone[place] / gone[place - 1])
        if removed < gone[0]:
            power = np.clip(power, *FIRST_POWERS)
        return float(errors[place - 1] * (removed / gone[place - 1]) ** power)


@dataclass(frozen=True)
class _Reader:
    """A layer that reads free groups: its weight as a matrix, and the moments of its inputs in float32."""

    layer: LayerCall
    geometry: Geometry
    matrix: Tensor  # [groups, inputs, outputs]
    mean: Tensor  # [groups, inputs]
    covariance: Tensor  # [groups, inputs, inputs]
    sink: Sink | None


def pruning_errors(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Batches,
    groups: Sequence[Group],
    *,
    multiple: int = 8,
    shares: Sequence[float] = SHARES,
) -> dict[str, Curve]:
    """A curve for each of `groups` that some layer reads. The model is as before at the end.

    Args:
        batches: positional arguments of one forward call each; moments are of all, outputs of the first `IMAGES` rows.
        shares: of the width, at which the error is measured; counts are multiples of the group's step.
    """
    evidence = Evidence(model, graph, batches)
    with evaluating(model):
        readers, orders = _readers(evidence, batches)
        read = [group for group in groups if group.id in orders]
        touched = [_touched(evidence, readers, graph.groups.index(group)) for group in read]
        passes = _recorded(model, batches, touched)
        kinds = kinds_of([each.output for each in passes])
        curves: dict[str, Curve] = {}
        for group, ids in zip(track(read, "measuring output errors"), touched, strict=True):
            counts = _counts(group, multiple, shares)
            errors = [0.0]
            for count in counts:
                with _narrowed(evidence, readers, group, graph.groups.index(group), top(orders[group.id], count)):
                    answers = [each.run(ids) for each in passes]
                errors.append(max(errors[-1], 1 - kinds.agreement([each.output for each in passes], answers)))
            curves[group.id] = Curve((group.width, *counts), tuple(errors), orders[group.id])
    return curves


def _touched(evidence: Evidence, readers: Mapping[str, _Reader], index: int) -> set[int]:
    """Ids of the tensors that change where the group is narrowed."""
    tensors = {**evidence.parameters, **dict(evidence.model.named_buffers())}
    mine = _readers_of(readers, index)
    names = [each.layer.weight for each in mine] + [each.sink.tensor for each in mine if each.sink is not None]
    return {id(tensors[name]) for name in names}


def _recorded(
    model: nn.Module, batches: Sequence[tuple[Any, ...]], touched: Sequence[Collection[int]]
) -> list[Recording]:
    """Passes over the first `IMAGES` rows, fewer where they would take more than `MEMORY_BYTES`."""
    sample = _first(batches, IMAGES)
    _answer(model, sample[0])  # networks that keep grids of their first pass have them from here on
    passes: list[Recording] = []
    for args in sample:
        passes.append(Recording(model, args, touched))
        if sum(each.kept_bytes for each in passes) + passes[-1].kept_bytes > MEMORY_BYTES:
            break
    return passes


def _readers(evidence: Evidence, batches: Batches) -> tuple[dict[str, _Reader], dict[str, Array]]:
    """Every layer that mixes channels, by weight; and the order in which each group's channels stay."""
    graph = evidence.graph
    sinks = consumers_of(graph, PrunePlan.from_graph(graph, {}), running_means_behind(evidence.model, batches[0]))
    readers: dict[str, _Reader] = {}
    losses: dict[int, list[Array]] = {}
    for layer, moments, matrix in layer_moments(evidence, batches):
        regression = moments.regression()
        geometry = Geometry(
            layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.op == "conv_transpose", layer.groups
        )
        covariance, mean = regression.xx.float(), regression.x.float()
        sink = sinks[layer.weight].sink
        readers[layer.weight] = _Reader(layer, geometry, matrix, mean, covariance, sink)
        for group, loss in group_losses(evidence, layer, moments, matrix).items():
            losses.setdefault(group, []).append(loss)
    fallback = l2(evidence)
    orders = {
        group.id: np.mean(losses[index], axis=0) if index in losses else fallback[group.id].mean(0)
        for index, group in enumerate(graph.groups)
        if not group.frozen and (index in losses or _readers_of(readers, index))
    }
    return readers, orders


def _readers_of(readers: Mapping[str, _Reader], group: int) -> list[_Reader]:
    return [reader for reader in readers.values() if (reader.layer.inputs[:, 0] == group).any()]


def _counts(group: Group, multiple: int, shares: Sequence[float]) -> list[int]:
    step = group.step(multiple)
    counts = {max(step, round(group.width * share / step) * step) for share in shares}
    return sorted(counts - {group.width}, reverse=True)


@contextlib.contextmanager
def _narrowed(
    evidence: Evidence, readers: Mapping[str, _Reader], group: Group, index: int, kept: Index
) -> Iterator[None]:
    """The readers of the group see only the channels `kept`, and are re-fitted to them."""
    tensors = {**dict(evidence.model.named_parameters()), **dict(evidence.model.named_buffers())}
    before: dict[str, Tensor] = {}
    gone = np.setdiff1d(np.arange(group.width), kept)
    try:
        for reader in _readers_of(readers, index):
            matrix, offset = _refitted(reader, index, gone)
            weight = tensors[reader.layer.weight]
            before[reader.layer.weight] = weight.data.clone()
            weight.data.copy_(weight_from_matrix(matrix, reader.geometry, weight.shape))
            if reader.sink is not None:
                sink = tensors[reader.sink.tensor]
                before.setdefault(reader.sink.tensor, sink.data.clone())
                sink.data.add_((reader.sink.sign * offset.reshape(-1)).to(sink.dtype))
        yield
    finally:
        for name, value in before.items():
            tensors[name].data.copy_(value)


def _refitted(reader: _Reader, index: int, gone: Index) -> tuple[Tensor, Tensor]:
    """The weight matrix with zeros for what is gone, fitted to give the same outputs, and the change of their mean."""
    matrix = reader.matrix.clone()
    places = reader.layer.inputs.reshape(len(matrix), -1, 2)
    taps = matrix.shape[1] // places.shape[1]
    for part in range(len(matrix)):
        leaving = (places[part][:, 0] == index) & np.isin(places[part][:, 1], gone)
        if leaving.any():
            rows = np.repeat(leaving, taps)
            stay = torch.from_numpy(np.flatnonzero(~rows))
            own = reader.covariance[part][stay].double()
            matrix[part] = 0
            if len(stay):
                target = own @ reader.matrix[part]
                matrix[part][stay] = torch.cholesky_solve(target, cholesky_ridge(own[:, stay][None], RIDGE)[0])
    offset = (reader.mean.double().unsqueeze(1) @ (reader.matrix - matrix)).squeeze(1)
    return matrix, offset


def _first(batches: Sequence[tuple[Any, ...]], rows: int) -> list[tuple[Any, ...]]:
    chosen: list[tuple[Any, ...]] = []
    for args in batches:
        chosen.append(args)
        rows -= len(args[0]) if isinstance(args[0], Tensor) and args[0].dim() else 1
        if rows <= 0:
            break
    return chosen


def _answer(model: nn.Module, args: tuple[Any, ...]) -> Any:
    with torch.no_grad():
        return model(*args)
