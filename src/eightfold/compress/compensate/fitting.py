"""Least-squares compensation: the original and the pruned network advance side by side, one layer at a time, over all
calibration images at once; at each layer the pruned weights are fitted before the pruned network goes on. So are the
scales and shifts of layer norms that lost channels, each channel by itself: mean and variance are over fewer channels.

Nothing is stored but what the paused forward passes hold. Where that would exceed the memory budget (high resolutions),
fewer batches take part, and the others catch up later through the layers already fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from eightfold.compress.compensate.consumers import Consumer
from eightfold.compress.layerwise.layerwise_forward import PausedCall, layer_calls
from eightfold.compress.layerwise.lockstep import INPUTS_AT_MOST, in_step, inputs_of, live_bytes, rows_wanted
from eightfold.compress.least_squares.dual_ridge import DualRidge
from eightfold.compress.least_squares.moments import HalvedMoments
from eightfold.compress.least_squares.patches import (
    Positions,
    input_rows,
    output_rows,
    weight_from_matrix,
    weight_matrix,
)
from eightfold.compress.types import Args
from eightfold.errors import ModelError


def fit_layers(
    pruned: nn.Module,
    original: nn.Module,
    sites: Mapping[str, Consumer],
    batches: Sequence[Args],
    *,
    memory_bytes: int,
    seed: int,
    on_layer: Callable[[str], None] = lambda weight: None,
) -> tuple[str, ...]:
    """Fit every layer of `pruned` in place; returns the weights fitted, in execution order.

    Args:
        sites: what each layer lost, by weight name.
        batches: positional arguments of one forward call each; at least one.
        memory_bytes: what the activations of all batches together may take.
        seed: chooses the positions whose patches are used.
        on_layer: called after each layer, for progress.
    """
    fitter = _Fitter(pruned, original, sites, seed)
    norms = frozenset(weight for weight, site in sites.items() if site.norm)
    room = _room(pruned, original, batches[0], memory_bytes, norms)

    def start(args: Args, skip: int) -> _Pair:
        return _Pair(pruned, original, args, skip=skip, norms=norms)

    for layer, pairs in in_step(start, batches, room):
        on_layer(fitter.step(pairs, layer))
    return tuple(fitter.fitted)


def _room(pruned: nn.Module, original: nn.Module, args: Args, memory_bytes: int, norms: Collection[str]) -> list[int]:
    """Number of batches like `args` that fit into memory at each layer of the pruned network."""
    names = {name for name, _ in pruned.named_parameters()}
    mine = live_bytes(pruned, args, norms)
    theirs = [item for item in live_bytes(original, args, norms) if item[0] in names]
    if [name for name, _ in mine] != [name for name, _ in theirs]:
        raise ModelError(
            "the pruned and the original network do not run the same layers on the same images",
            remedy="compensate the part that always runs the same way, such as model.backbone",
        )
    return [max(1, memory_bytes // max(a + b, 1)) for (_, a), (_, b) in zip(mine, theirs, strict=True)]


class _Pair:
    """One batch's forward passes through both networks, each paused before the same layer."""

    def __init__(
        self, pruned: nn.Module, original: nn.Module, args: Args, *, skip: int, norms: Collection[str]
    ) -> None:
        self._args = args
        self._names = {name for name, _ in pruned.named_parameters()}
        self._limit, self._seed = 0, 0
        self._target: tuple[Positions, Tensor] | None = None
        self._input_shape: tuple[int, ...] = ()
        self._pruned = layer_calls(pruned, args, norms=norms)
        self._original = layer_calls(original, args, observe=self._sample, norms=norms)
        self.call: PausedCall | None = None
        self._advance_original()
        self.advance()
        for _ in range(skip):
            self._advance_original()
            self.advance()

    def advance(self) -> None:
        """Runs the current layer of the pruned network and pauses before the next."""
        self.call = None  # or this input would live on beside the next
        self.call = next(self._pruned, None)

    def rows(self, limit: int, seed: int) -> tuple[Tensor, Tensor] | None:
        """Inputs of the pruned network's layer and outputs of the original's, at the same sampled positions.

        None where the two see different numbers of positions (regions proposed by the network itself).
        """
        self._limit, self._seed = limit, seed
        self._advance_original()
        assert self.call is not None, "rows are asked for at a pause"
        assert self._target is not None, "both passes pause before the same layer"
        (positions, target), self._target, self._limit = self._target, None, 0
        x = self.call.input
        if (x.shape[0], *x.shape[2:]) != self._input_shape:
            return None
        return input_rows(x, self.call.geometry, positions), target

    def close(self) -> Args:
        for passing in (self._pruned, self._original):
            passing.close()  # type: ignore[attr-defined]  # generators, declared as the iterators that callers need
        self.call = None
        return self._args

    def _advance_original(self) -> None:
        """Skips the current layer and layers that the pruned network no longer has."""
        while (call := next(self._original, None)) is not None and call.weight not in self._names:
            del call

    def _sample(self, call: PausedCall, output: Tensor) -> None:
        if not self._limit or call.weight not in self._names:
            return
        positions = Positions.sample(output.shape, self._limit, self._seed)
        self._target = positions, output_rows(output, positions, groups=1)[0]
        self._input_shape = (call.input.shape[0], *call.input.shape[2:])


class _Fitter:
    def __init__(self, pruned: nn.Module, original: nn.Module, sites: Mapping[str, Consumer], seed: int) -> None:
        self._sites, self._seed = sites, seed
        self._tensors = {**dict(pruned.named_parameters()), **dict(pruned.named_buffers())}
        self._before = original.state_dict()
        self._shared: dict[str, HalvedMoments | DualRidge] = {}
        self.fitted: dict[str, None] = {}

    def step(self, pairs: list[_Pair], layer: int) -> str:
        """Fit the layer before which all pairs are paused, and let them run it. Returns the name of its weight."""
        call = pairs[0].call
        assert call is not None, "the pilot pass counted the layers"
        weight, geometry = call.weight, call.geometry
        regression = self._regression(call)
        limit = rows_wanted(call) // len(pairs) + 1
        del call
        kept = torch.from_numpy(self._sites[weight].kept_outputs)
        for number, pair in enumerate(pairs):
            rows = pair.rows(limit, seed=self._seed + 7919 * layer + number)
            if rows is not None:
                regression.add(rows[0], _by_group(rows[1][:, kept], geometry.groups))
        if regression.rows:
            parameter = self._tensors[weight]
            prior = weight_matrix(parameter.data, geometry)
            fit = regression.fit(prior, intercept=self._sites[weight].sink is not None)
            parameter.data.copy_(weight_from_matrix(fit.weight, geometry, parameter.shape))
            self._shift(self._sites[weight], fit.intercept)
            self.fitted[weight] = None
        for pair in pairs:
            pair.advance()
        return weight

    def _regression(self, call: PausedCall) -> HalvedMoments | DualRidge:
        """An empty one; for a weight that runs several times in one pass, that of its calls so far."""
        fresh = HalvedMoments() if inputs_of(call) <= INPUTS_AT_MOST else DualRidge()
        return fresh if self._sites[call.weight].calls == 1 else self._shared.setdefault(call.weight, fresh)

    def _shift(self, site: Consumer, offset: Tensor) -> None:
        """Set the sink so that the layer's output without bias, plus `offset`, takes the place of the original's."""
        if site.sink is not None:
            base = self._before[site.sink.tensor].flatten()[torch.from_numpy(site.kept_outputs)].double()
            sink = self._tensors[site.sink.tensor].data
            sink.copy_((base + site.sink.sign * offset.reshape(-1)).reshape(sink.shape))


def _by_group(rows: Tensor, groups: int) -> Tensor:
    return rows.reshape(len(rows), groups, -1).movedim(1, 0)
