"""Widths by measured output error: the curves against brute force, and the plan against the uniform one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eightfold.compress.compensate.compensate import compensate
from eightfold.compress.plan.costs import macs_cost
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.sensitivity.output_error import Curve, pruning_errors
from eightfold.compress.sensitivity.widths import kept_for_cost
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.macs import count_macs
from eightfold.compress.trace.trace import trace
from eightfold.errors import UnknownNameError, UsageError


def network() -> nn.Sequential:
    """The second convolution needs few of its channels: all but eight are copies of those. The first needs all."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    weight, bias = model.get_parameter("2.weight"), model.get_parameter("2.bias")
    with torch.no_grad():
        weight.copy_(weight[:8].repeat(4, 1, 1, 1))
        bias.copy_(bias[:8].repeat(4))
    return model


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(32, 3, 8, 8, generator=generator)


def test_copies_cost_nothing_and_the_model_is_as_before() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    graph = trace(model, images()[:1])
    curves = pruning_errors(model, graph, [(images(),)], graph.free, shares=(0.5, 0.25))
    copies, needed = curves["2.weight"], curves["0.weight"]
    assert copies.kept == needed.kept == (32, 16, 8)
    assert copies.errors[-1] < 1e-3  # re-fitting the reader to the eight that stay is exact
    assert needed.errors[-1] > 0.05
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_point_is_what_pruning_and_least_squares_give() -> None:
    model = network()
    graph = trace(model, images()[:1])
    curve = pruning_errors(model, graph, [(images(),)], [graph.group("0.weight")], shares=(0.5,))["0.weight"]
    kept = np.sort(np.argsort(-curve.order, kind="stable")[:16])
    plan = PrunePlan.from_graph(graph, {"0.weight": kept})
    pruned = copy.deepcopy(model)
    apply_plan_to_module(pruned, plan)
    compensate(pruned, model, plan, images(), method="lsq")
    with torch.no_grad():
        wanted, seen = model(images()), pruned(images())
    centred = [x - x.mean(1, keepdim=True) for x in (wanted, seen)]
    error = (centred[1] - centred[0]).square().sum() / (centred[0] - centred[0].mean(0)).square().sum()
    assert curve.errors[1] == pytest.approx(float(error), rel=0.5)  # least squares adapts later layers, too


def test_the_measured_plan_costs_no_more_and_keeps_more() -> None:
    model = network()
    plans = {
        rule: plan_module(model, images()[:1], rule=rule, keep_ratio=0.5, images=images())
        for rule in ("uniform", "measured")
    }
    errors, macs = {}, {}
    for rule, plan in plans.items():
        pruned = copy.deepcopy(model)
        apply_plan_to_module(pruned, plan)
        compensate(pruned, model, plan, images(), method="lsq")
        macs[rule] = count_macs(pruned, images()[:1])
        with torch.no_grad():
            errors[rule] = float((pruned(images()) - model(images())).square().mean())
    assert macs["measured"] <= macs["uniform"]
    assert errors["measured"] < 0.2 * errors["uniform"]
    assert len(plans["measured"].kept.get("0.weight", np.arange(32))) > 16


def test_names_with_a_ratio_of_their_own_keep_it() -> None:
    plan = plan_module(network(), images()[:1], rule="measured", images=images(), max_macs=0.5, keep={"2.weight": 0.75})
    assert len(plan.kept["2.weight"]) == 24


def test_between_points_a_curve_is_a_power_of_what_goes() -> None:
    whole = 2e-4 * np.arange(33.0) ** 2  # by channels that go
    kept = (32, 24, 16, 8)
    curve = Curve(kept, tuple(whole[32 - count] for count in kept), np.arange(32.0))
    assert [curve.at(count) for count in range(33)] == pytest.approx(whole[::-1].tolist())
    assert Curve((16, 8), (0.0, 0.4), np.arange(16.0)).at(12) == pytest.approx(0.2)


def test_what_is_left_of_a_budget_is_given_back() -> None:
    model = network()
    graph = trace(model, images()[:1])
    groups = [graph.group("0.weight"), graph.group("2.weight")]
    flat = Curve((32, 24, 16, 8), (0.0, 0.1, 0.1001, 0.1002), np.arange(32.0))
    steep = Curve((32, 24, 16, 8), (0.0, 0.2, 0.5, 0.9), np.arange(32.0))
    cost = macs_cost(graph)
    whole = cost({})
    most = 0.99 * whole  # one step of either group does: the long step is taken, and then shortened
    kept = kept_for_cost(groups, {groups[0].id: steep, groups[1].id: flat}, cost, most, multiple=8, fixed={})
    assert cost(kept) <= most
    every = [{groups[0].id: np.arange(a), groups[1].id: np.arange(b)} for a in (8, 16, 24, 32) for b in (8, 16, 24, 32)]
    wider = [each for each in every if cost(each) <= most and all(len(each[g]) >= len(kept[g]) for g in kept)]
    assert len(wider) == 1  # nothing that fits is wider


def test_a_budget_out_of_reach() -> None:
    model = network()
    graph = trace(model, images()[:1])
    groups = [graph.group("0.weight"), graph.group("2.weight")]
    curves = {group.id: Curve((32, 8), (0.0, 1.0), np.arange(32.0)) for group in groups}
    with pytest.raises(UsageError, match=r"out of reach; allowed: .* or more"):
        kept_for_cost(groups, curves, macs_cost(graph), 10.0, multiple=8, fixed={})


def test_without_images() -> None:
    with pytest.raises(UsageError, match="the rule 'measured' got no images"):
        plan_module(network(), images()[:1], rule="measured")
    with pytest.raises(UnknownNameError, match="measured"):
        plan_module(network(), images()[:1], rule="measure")
