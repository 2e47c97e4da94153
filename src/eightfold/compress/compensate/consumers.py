"""Finds the layers that compensation acts on: for each layer of a pruned network the inputs it lost and the tensor that
can take an offset. Norms whose statistics lost channels are among them, by the name of their scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.trace.groups import ChannelGraph, Index, LayerCall, NormCall


class Sink(NamedTuple):
    """A tensor [C_out] that shifts a layer's output: adding `sign * c` to it adds c to what the next layer sees."""

    tensor: str
    sign: int


@dataclass(frozen=True)
class Consumer:
    """One layer, in terms of the channels it had before pruning."""

    weight: str
    kept_outputs: Index
    removed_inputs: Index
    sink: Sink | None  # None: no bias and no batch norm of its own, so that an offset has nowhere to go
    calls: int  # how often one forward pass runs it
    norm: bool = False


def consumers_of(graph: ChannelGraph, plan: PrunePlan, running_means: Mapping[str, str]) -> Mapping[str, Consumer]:
    """Weight name -> Site, for every layer of the graph.

    Args:
        running_means: of the batch norms behind convolutions, as `running_means_behind` finds them.
    """
    stays = _masks(graph, plan)
    by_weight: dict[str, list[LayerCall]] = {}
    for call in graph.layers:
        by_weight.setdefault(call.weight, []).append(call)
    layers = {weight: _consumer(calls, stays, running_means) for weight, calls in by_weight.items()}
    return {**layers, **_norms(graph, stays)}


def _norms(graph: ChannelGraph, stays: list[npt.NDArray[np.bool_]]) -> Mapping[str, Consumer]:
    """Scale name -> Consumer, for each norm whose statistics lost channels and that has a scale to re-fit."""
    by_scale: dict[str, list[NormCall]] = {}
    for norm in graph.norms:
        if norm.weight and not _staying(norm.channels, stays).all():
            by_scale.setdefault(norm.weight, []).append(norm)
    found = {}
    for weight, calls in by_scale.items():
        staying = _staying(calls[0].channels, stays)
        sink = Sink(calls[0].bias, +1) if calls[0].bias else None
        found[weight] = Consumer(weight, np.flatnonzero(staying), np.flatnonzero(~staying), sink, len(calls), norm=True)
    return found


def _consumer(calls: list[LayerCall], stays: list[npt.NDArray[np.bool_]], running_means: Mapping[str, str]) -> Consumer:
    first = calls[0]
    return Consumer(
        weight=first.weight,
        kept_outputs=np.flatnonzero(_staying(first.outputs, stays)),
        removed_inputs=np.flatnonzero(~_staying(first.inputs, stays)),
        sink=_sink(first, running_means),
        calls=len(calls),
    )


def _sink(call: LayerCall, running_means: Mapping[str, str]) -> Sink | None:
    if call.bias:
        return Sink(call.bias, +1)
    running_mean = running_means.get(call.weight, "")
    return Sink(running_mean, -1) if running_mean else None


def _masks(graph: ChannelGraph, plan: PrunePlan) -> list[npt.NDArray[np.bool_]]:
    """For each group of the graph, which of its coupled channels stay."""
    kept = plan.kept
    return [np.isin(np.arange(group.width), kept.get(group.id, np.arange(group.width))) for group in graph.groups]


def _staying(places: Index, stays: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    return np.array([group < 0 or bool(stays[group][channel]) for group, channel in places.tolist()], dtype=np.bool_)
