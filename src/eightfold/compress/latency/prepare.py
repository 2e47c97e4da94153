"""Prepares a request for a network: layers, their prices fitted to whole networks, and the counts to choose from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from torch import nn

from eightfold.compress.latency.case import Case
from eightfold.compress.latency.damage import int8_damage
from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.latency.request import LatencyRequest
from eightfold.compress.latency.side import Side
from eightfold.compress.latency.whole_network import WholeNetwork, fitting_plans
from eightfold.compress.plan.latency.budget_text import MIXED, Budget
from eightfold.compress.plan.latency.choices import WidthChoice, choices_by_error, choices_by_score
from eightfold.compress.plan.latency.prices import Mixed, Prices
from eightfold.compress.plan.latency.widths import Counts, NetworkLayer, widest
from eightfold.compress.plan.select import Selection, matches, prunable, round_count
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.sensitivity.output_error import Curve
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.types import Args
from eightfold.errors import BackendError, UsageError
from eightfold.runtime.bench.energy import PowerMeter
from eightfold.runtime.bench.profile.grid import Point
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, profile_layers
from eightfold.runtime.bench.profile.roofline import Roofline
from eightfold.runtime.bench.profile.settings import ProfileSettings

MB = 1e6
BYTES = {"fp32": 4, "int8": 1}


class RooflineWarning(UserWarning):
    """Latencies are estimated by a roofline: the target's device is not here."""


@dataclass(frozen=True)
class Subject:
    """The network that a plan is made for.

    Attributes:
        scores: group id -> [layers, width].
        curves: measured output errors by group: they then decide instead of the scores.
        batches: images.
    """

    model: nn.Module
    example_inputs: Any
    graph: ChannelGraph
    scores: LayerScores
    selection: Selection
    curves: Mapping[str, Curve] | None = None
    batches: Sequence[Args] = ()


def prepared(subject: Subject, request: LatencyRequest) -> Case:
    """The case of a request: everything that is measured before the program is solved."""
    layers = network_layers(subject.model, subject.example_inputs, subject.graph, batch=request.batch)
    if not layers:
        raise UsageError("a latency budget for a network without layers that can be timed", allowed="convolutions, ...")
    conditions = request.conditions
    profiles = [layer_profile(layers, each) for each in conditions]
    multiple = subject.selection.multiple
    choices = _choices(subject, max([multiple, *(each.multiple for each in profiles if each is not None)]))
    networks = [_network(subject, each, profile) for each, profile in zip(conditions, profiles, strict=True)]
    main, *others = map(_side, repeat(layers), conditions, profiles, networks)
    if request.target_weights:
        for side, weight in zip((main, *others), request.target_weights, strict=True):
            side.weight = weight
    case = Case(request, main, choices, multiple, networks[0])
    case.profiled = "" if profiles[0] is None else profiles[0].settings.describe()
    plans = fitting_plans({each.group: each.counts for each in choices}, draws=max(0, request.fitting - 2))
    main.fit(plans)
    case.sides = (*others, *_resources(request, case, layers))
    for side in case.sides:
        side.fit(plans)
    if request.precision == MIXED:
        _choose_precisions(subject, case, layers, plans)
    return case


def layer_profile(layers: tuple[NetworkLayer, ...], request: LatencyRequest) -> LayerProfile | None:
    """Measured latencies of the layers; None where only a roofline is left."""
    if not request.measurable and request.profile is None:
        if request.budget.ms is not None:
            raise UsageError(
                f"a budget of {request.budget} for {request.target_name}, which is not here",
                allowed="a share such as 0.5x: without the device, latencies are a roofline's",
                remedy="run eightfold profile on the device, and pass its file with --profile",
            )
        return None
    if not request.measurable:
        return profile_layers(widest(layers), request.store(), timer=_elsewhere)
    return profile_layers(widest(layers), request.store())


def _elsewhere(points: Sequence[Point], settings: ProfileSettings) -> tuple[Sequence[float], float]:
    """The timer of a profile that was made on another machine: it has no time for what is missing."""
    shape, inputs, outputs = points[0]
    raise BackendError(
        f"the profile of {settings.target} on {settings.device} has no layer {shape.key} of {inputs} to {outputs}",
        allowed="a profile of this network at this batch and image size",
        remedy=f"there: eightfold profile MODEL --target {settings.target} --precision {settings.precision} "
        f"--threads {settings.threads} -o FILE",
    )


def _choices(subject: Subject, block: int) -> tuple[WidthChoice, ...]:
    selection = subject.selection
    groups = prunable(subject.graph, selection)
    energies = {group.id: np.abs(subject.scores[group.id].mean(axis=0)) for group in groups}
    fixed = {
        group.id: round_count(group.width * ratio, group, selection.multiple)
        for pattern, ratio in selection.keep.items()
        for group in groups
        if matches(group, pattern)
    }
    choices = choices_by_score(groups, energies, selection.multiple, block=block, fixed=fixed)
    if not subject.curves:
        return choices
    errors = {
        choice.group: {count: subject.curves[choice.group].at(count) for count in choice.counts}
        for choice in choices
        if choice.group in subject.curves
    }
    return choices_by_error(groups, errors, choices)


def _side(
    layers: tuple[NetworkLayer, ...],
    request: LatencyRequest,
    profile: LayerProfile | None,
    network: WholeNetwork | None,
) -> Side:
    if profile is None:
        warnings.warn(
            f"no {request.target_name} device is here: latencies are a roofline's", RooflineWarning, stacklevel=5
        )
    name = f"latency on {request.target_name} {request.precision}"
    prices = Prices(layers, profile.at if profile else _roofline(request))
    return Side(name, "ms", request.budget.plain, prices, None if network is None else network.measure)


def _network(subject: Subject, request: LatencyRequest, profile: LayerProfile | None) -> WholeNetwork | None:
    """The network as it can be measured here, or None."""
    if profile is None or not request.measurable:
        return None
    return WholeNetwork(
        subject.model,
        subject.example_inputs,
        subject.graph,
        profile.settings,
        batch=request.batch,
        write=request.write,
    )


def _resources(request: LatencyRequest, case: Case, layers: tuple[NetworkLayer, ...]) -> list[Side]:
    """Budgets of memory and energy."""
    if not (request.memory or request.energy):
        return []
    network = case.network
    if network is None:
        raise UsageError(
            f"a budget of {'memory' if request.memory else 'energy'} for {request.target_name}, which is not here",
            allowed="targets of this machine, where it is measured",
        )
    sides = []
    if request.memory:
        size = BYTES[network.settings.precision]

        def megabytes(shape: LayerShape, inputs: float, outputs: float) -> float:
            return shape.values(round(inputs), round(outputs))[0] * size / MB

        budget = Budget.parse("memory", request.memory)
        sides.append(Side("memory", "MB", budget, Prices(layers, megabytes), network.memory_mb))
    if request.energy:
        budget = Budget.parse("energy", request.energy)
        measure = partial(network.energy_mj, meter=PowerMeter())
        sides.append(Side("energy", "mJ", budget, Prices(layers, case.prices.time), measure))
    return sides


def _roofline(request: LatencyRequest) -> Callable[[LayerShape, float, float], float]:
    roofline = Roofline()

    def time(shape: LayerShape, inputs: float, outputs: float) -> float:
        return roofline.times([(shape, round(inputs), round(outputs))], int8=request.precision != "fp32")[0]

    return time


def _choose_precisions(
    subject: Subject, case: Case, layers: tuple[NetworkLayer, ...], plans: Mapping[str, Counts]
) -> None:
    """Add the choice between INT8 and float, layer by layer."""
    request = replace(case.request, precision="fp32")
    profile = layer_profile(layers, request)
    network = _network(subject, request, profile)
    if profile is None or network is None or case.network is None:
        raise UsageError(
            f"precisions to be chosen for {request.target_name}, which is not here",
            allowed="targets of this machine; precision fp32 or int8 for others",
        )
    case.damage = int8_damage(network, layers, subject.batches)
    side = Side("float", "ms", request.budget.plain, Prices(layers, profile.at), network.measure)
    side.fit(plans)
    case.mixed = Mixed(FloatPrices(side.prices), case.damage.values)


@dataclass(frozen=True)
class FloatPrices:
    """Prices of layers in float between layers in INT8: with the conversion of what they read and write."""

    prices: Prices
    roofline: Roofline = field(default_factory=Roofline)

    @property
    def layers(self) -> tuple[NetworkLayer, ...]:
        return self.prices.layers

    @property
    def constant(self) -> float:
        return self.prices.constant

    def of_layer(self, layer: NetworkLayer, inputs: float, outputs: float) -> float:
        """Milliseconds of the layer in float and of two conversions."""
        values = layer.shape.values(round(inputs), round(outputs))[0]
        moved = values * (BYTES["fp32"] + BYTES["int8"]) / self.roofline.bytes_per_ms
        return self.prices.of_layer(layer, inputs, outputs) + moved + 2 * self.roofline.overhead_ms

    def network_ms(self, counts: Counts) -> float:
        """Milliseconds of the network in float, with conversions around every layer."""
        return self.constant + sum(self.of_layer(layer, *layer.widths(counts)) for layer in self.layers)
