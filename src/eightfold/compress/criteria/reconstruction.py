"""The criterion that goes with least-squares compensation: what the layers that read a channel lose when it goes and
the other channels take its place as well as they can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from eightfold.compress.criteria.evidence import Array, Evidence, stacked_rows
from eightfold.compress.criteria.weights import l2
from eightfold.compress.layerwise.layerwise_forward import PausedCall, layer_calls
from eightfold.compress.layerwise.lockstep import INPUTS_AT_MOST, in_step, inputs_of, live_bytes, rows_wanted
from eightfold.compress.least_squares.moments import Moments
from eightfold.compress.least_squares.patches import Positions, input_rows, weight_matrix
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.trace.groups import Index, LayerCall
from eightfold.compress.types import Args
from eightfold.export.verify.module_runs import evaluating

RIDGE = 1e-3
ROUNDS = 16
MEMORY_BYTES = 384 << 20


def lsq(evidence: Evidence) -> LayerScores:
    """Share of the readers' output variance that is lost when the channel goes and those that stay are re-fitted.

    Channels are eliminated cheapest first from the readers' normal equations (optimal brain surgeon, Hassibi and Stork
    1993, with a channel's whole block of weights as the unit); a channel's score is the loss up to and including it.
    One row for each layer that reads the group; `l2` where none can be measured.
    """
    batches = evidence.need_images("lsq")
    found: dict[int, list[Array]] = {}
    with evaluating(evidence.model):
        for layer, moments, weight in layer_moments(evidence, batches):
            for group, losses in group_losses(evidence, layer, moments, weight).items():
                found.setdefault(group, []).append(losses)
    fallback = l2(evidence)
    graph = evidence.graph
    return {
        group.id: stacked_rows(found[index], group.width) if index in found else fallback[group.id]
        for index, group in enumerate(graph.groups)
        if not group.frozen
    }


class _Reading:
    """One batch's pass through the network; `moments` is where the layer at hand leaves its rows."""

    def __init__(self, evidence: Evidence, args: Args, skip: int) -> None:
        self._args = args
        self.moments: Moments | None = None
        self.rows = 0
        self._calls = layer_calls(evidence.model, args, observe=self._observe)
        self.call: PausedCall | None = None
        for _ in range(skip + 1):
            self.advance()

    def advance(self) -> None:
        self.call = None
        self.call = next(self._calls, None)

    def close(self) -> Args:
        self.call = None
        self._calls.close()  # type: ignore[attr-defined]  # a generator, declared as the iterator that callers need
        return self._args

    def _observe(self, call: PausedCall, output: Tensor) -> None:
        if self.moments is not None:
            x = input_rows(call.input, call.geometry, Positions.sample(output.shape, self.rows, seed=0))
            self.moments.add(x, x[..., :0])


def layer_moments(evidence: Evidence, batches: Sequence[Args]) -> Iterator[tuple[LayerCall, Moments, Tensor]]:
    """Every layer that mixes channels of a free group, with the moments of its inputs and its weight matrix."""
    held = live_bytes(evidence.model, batches[0])
    layers = {layer.weight: layer for layer in evidence.graph.layers}
    done: set[str] = set()
    steps = in_step(
        lambda args, skip: _Reading(evidence, args, skip), batches, [max(1, MEMORY_BYTES // max(n, 1)) for _, n in held]
    )
    for _, passes in steps:
        call = passes[0].call
        assert call is not None, "the pilot pass counted the layers"
        name, geometry, wanted = call.weight, call.geometry, rows_wanted(call)
        fits = inputs_of(call) <= INPUTS_AT_MOST
        del call
        measured = fits and name not in done and name in layers and not layers[name].depthwise
        moments = Moments()
        for each in passes:
            each.moments, each.rows = (moments if measured else None), wanted // len(passes) + 1
            each.advance()
        if measured:
            done.add(name)
            yield layers[name], moments, weight_matrix(evidence.parameters[name].detach().double(), geometry)


def group_losses(evidence: Evidence, layer: LayerCall, moments: Moments, weight: Tensor) -> dict[int, Array]:
    """Group number -> loss of each of its channels in this layer; the mean over the layer's convolution groups."""
    gram = moments.regression().xx
    places = layer.inputs.reshape(len(gram), -1, 2)
    free = [index for index, group in enumerate(evidence.graph.groups) if not group.frozen]
    found: dict[int, Array] = {}
    for group in np.intersect1d(places[..., 0], free).tolist():
        found[group] = np.zeros(evidence.graph.groups[group].width)
    if not found:
        return {}
    for part, (own_gram, own_weight) in enumerate(zip(gram, weight, strict=True)):
        blocks = _blocks(places[part], free, len(own_gram))
        for (group, channel), loss in zip(*_named(places[part], blocks, own_gram, own_weight), strict=True):
            found[group][channel] += loss / len(gram)
    return found


def _blocks(places: Index, free: list[int], inputs: int) -> Index:
    """For each weight row the number of the channel it belongs to, -1 for what cannot go."""
    taps = inputs // len(places)
    keys = np.where(np.isin(places[:, 0], free), places[:, 0] * 2**32 + places[:, 1], -1)
    return np.repeat(keys, taps)


def _named(places: Index, blocks: Index, gram: Tensor, weight: Tensor) -> tuple[list[tuple[int, int]], list[float]]:
    losses = eliminate(gram, weight, blocks)
    return [(key >> 32, key % 2**32) for key in losses], list(losses.values())


def eliminate(gram: Tensor, weight: Tensor, blocks: Index, *, ridge: float = RIDGE) -> dict[int, float]:
    """Loss of each block when blocks go cheapest first and the weights that stay are re-fitted after each round.

    Args:
        gram: covariance of the inputs, float64 [inputs, inputs].
        weight: float64 [inputs, outputs].
        blocks: which block each input belongs to, [inputs]; negative for inputs that stay.
        ridge: on the diagonal, relative to its mean.

    Returns:
        Block -> share of the outputs' variance lost once it and all cheaper ones are gone.
    """
    variance = ((gram @ weight) * weight).sum(0)
    weight = weight / torch.sqrt(variance + 1e-9 * variance.mean() + 1e-30)
    size = gram.diagonal().mean().clamp(min=1e-30)
    inverse = torch.linalg.inv(gram + ridge * size * torch.eye(len(gram), dtype=gram.dtype))
    losses: dict[int, float] = {}
    lost = 0.0
    while (blocks >= 0).any():
        costs = _costs(inverse, weight, blocks)
        cheapest = sorted(costs, key=lambda block: (costs[block], block))[: max(1, len(costs) // ROUNDS)]
        for block in cheapest:
            lost += costs[block] / weight.shape[1]
            losses[block] = lost
        inverse, weight, blocks = _without(inverse, weight, blocks, cheapest)
    return losses


def _costs(inverse: Tensor, weight: Tensor, blocks: Index) -> dict[int, float]:
    """tr(w' inverse[block, block]^-1 w) of each block: what the outputs lose when it alone goes."""
    names, counts = np.unique(blocks[blocks >= 0], return_counts=True)
    costs: dict[int, float] = {}
    for count in np.unique(counts).tolist():  # blocks of equal size as one batch
        alike = names[counts == count]
        order = np.argsort(blocks, kind="stable")
        index = torch.from_numpy(order[np.isin(blocks[order], alike)].reshape(len(alike), count))
        own = inverse[index.unsqueeze(2), index.unsqueeze(1)]
        rows_of = weight[index]
        cost = (rows_of * torch.linalg.solve(own, rows_of)).sum((1, 2))
        costs.update(zip(alike.tolist(), cost.clamp(min=0).tolist(), strict=True))
    return costs


def _without(inverse: Tensor, weight: Tensor, blocks: Index, gone: list[int]) -> tuple[Tensor, Tensor, Index]:
    """The inverse and the re-fitted weights once `gone` have left (block-wise Gaussian elimination)."""
    leaving = np.isin(blocks, gone)
    out, stay = torch.from_numpy(np.flatnonzero(leaving)), torch.from_numpy(np.flatnonzero(~leaving))
    column = inverse[stay][:, out]
    step = torch.linalg.solve(inverse[out][:, out], torch.cat([column.T, weight[out]], dim=1))
    return (
        inverse[stay][:, stay] - column @ step[:, : len(stay)],
        weight[stay] - column @ step[:, len(stay) :],
        blocks[~leaving],
    )
