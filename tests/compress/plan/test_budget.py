"""Costs against the models that surgery makes, and plans against brute force."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision
from benchmarks.masked_reference import random_plan
from torch import nn

from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import layer_scores
from eightfold.compress.plan.budget import CostBudget, SlackBudgetWarning, _filled, budgets_of
from eightfold.compress.plan.costs import macs_cost, parameters_cost
from eightfold.compress.plan.select import Selection, select
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.groups import ChannelGraph, Index, Kept
from eightfold.compress.trace.macs import count_macs, count_parameters
from eightfold.compress.trace.trace import trace
from eightfold.errors import UsageError

torch.manual_seed(0)  # tests are seeded each for themselves; this is for what the module draws
INPUT = torch.rand(1, 3, 64, 64)


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.mobilenet_v2(weights=None).eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnext50_32x4d", "squeezenet1_1"])
def test_costs_are_those_of_the_pruned_model(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None)
    graph = trace(model, INPUT)
    plan = random_plan(graph, keep_ratio=0.6)
    macs, parameters = macs_cost(graph), parameters_cost(graph, dict(model.named_parameters()))
    assert macs({}) == count_macs(model, INPUT)
    assert parameters({}) == count_parameters(model)
    expected = macs(plan.kept), parameters(plan.kept)
    apply_plan_to_module(model, plan)
    assert (count_macs(model, INPUT), count_parameters(model)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnext50_32x4d", "squeezenet1_1", "densenet121"])
def test_growths_are_differences_of_costs(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None)
    graph = trace(model, INPUT)
    few, many = random_plan(graph, keep_ratio=0.4).kept, random_plan(graph, keep_ratio=0.7).kept
    for cost in (macs_cost(graph), parameters_cost(graph, dict(model.named_parameters()))):
        growths = cost.growths(few, many)
        expected = {name: cost({**few, name: many[name]}) - cost(few) for name in many}
        assert growths == pytest.approx(expected, rel=1e-9, abs=1e-3)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "resnet18"])
def test_what_is_left_goes_where_it_gains_most_for_its_cost(name: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    graph = trace(model, INPUT)
    scores = layer_scores(Evidence(model, graph), "l2")
    budgets = budgets_of(model, graph, max_macs=0.5, max_params=0.5)
    start = select(graph, scores, Selection(keep_ratio=0.4))
    filled = _filled(budgets, graph, scores, Selection(), dict(start))
    expected = _filled_by_trying_all(budgets, graph, scores, dict(start))
    assert {key: kept.tolist() for key, kept in filled.items()} == {k: kept.tolist() for k, kept in expected.items()}


def _filled_by_trying_all(
    budgets: Sequence[CostBudget], graph: ChannelGraph, scores: LayerScores, kept: dict[str, Index]
) -> Kept:
    """Every step of every group costed as a whole plan, the best one taken, until none fits."""
    while True:
        gains: dict[str, tuple[float, Index]] = {}
        for name, channels in kept.items():
            group, mean = graph.group(name), scores[name].mean(0)
            left = np.setdiff1d(np.arange(group.width), channels)
            added = left[np.argsort(-mean[left], kind="stable")[: group.step(8)]]
            wider = {**kept, name: np.sort(np.concatenate([channels, added]))}
            if len(added) == group.step(8) and all(budget.holds(wider) for budget in budgets):
                cost = budgets[0].cost(wider) - budgets[0].cost(kept)
                gains[name] = float(mean[added].sum() / mean.sum()) / cost, wider[name]
        if not gains:
            return kept
        best = max(gains, key=lambda name: gains[name][0])
        kept[best] = gains[best][1]


@pytest.mark.parametrize("rule", ["uniform", "global"])
def test_a_macs_budget_is_met_and_used(rule: str, mobilenet: nn.Module) -> None:
    plan = plan_module(mobilenet, INPUT, rule=rule, max_macs=0.5)
    pruned = copy.deepcopy(mobilenet)
    apply_plan_to_module(pruned, plan)
    assert 0.48 < count_macs(pruned, INPUT) / count_macs(mobilenet, INPUT) <= 0.5
    assert "MACs" in plan.budget
    assert "suggested limit" in plan.describe()


def test_both_budgets_hold(mobilenet: nn.Module) -> None:
    most = 1_200_000
    pruned = copy.deepcopy(mobilenet)
    apply_plan_to_module(pruned, plan_module(mobilenet, INPUT, max_macs=0.8, max_params=most))
    assert 0.95 * most < count_parameters(pruned) <= most
    assert count_macs(pruned, INPUT) <= 0.8 * count_macs(mobilenet, INPUT)


def test_every_width_stays_a_multiple(mobilenet: nn.Module) -> None:
    plan = plan_module(mobilenet, INPUT, max_macs=0.37)
    assert all(len(group.kept) % 8 == 0 for group in plan.groups)
    assert all(np.all(np.diff(group.kept) > 0) for group in plan.groups)


def test_a_budget_out_of_reach_says_what_is_within(mobilenet: nn.Module) -> None:
    with pytest.raises(UsageError, match="at most 100 MACs is out of reach; allowed"):
        plan_module(mobilenet, INPUT, max_macs=100)
    with pytest.raises(UsageError, match="budget of -1 parameters"):
        plan_module(mobilenet, INPUT, max_params=-1)


def test_a_budget_that_the_whole_network_is_within_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 1))
    images = torch.rand(1, 3, 8, 8)
    macs = 64 * (3 * 32 * 9 + 32 * 8)
    words = re.escape(f"the network has {macs:.4g} MACs, within the budget of at most 2e+06 MACs: nothing has to go")
    with pytest.warns(SlackBudgetWarning, match=words):
        assert plan_module(model, (images,), max_macs=2e6, multiple=8).groups == ()
    with pytest.warns(SlackBudgetWarning):
        plan_module(model, (images,), max_macs=1.0, multiple=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan_module(model, (images,), max_macs=2e6, max_params=0.6, multiple=8).groups  # one of two is tight
