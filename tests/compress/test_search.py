from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from eightfold.compress.modules.reestimate import reestimate_norms
from eightfold.compress.search import search_pruning
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.macs import count_macs
from eightfold.errors import UsageError


def network() -> nn.Module:
    torch.manual_seed(0)
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=5).eval()  # type: ignore[no-any-return]


def test_reestimated_statistics_are_those_of_the_images() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()).eval()
    images = torch.randn(32, 4, 8, 8) * 3 + 2
    reestimate_norms(model, images)
    state = model.state_dict()
    torch.testing.assert_close(state["0.running_mean"], images.mean((0, 2, 3)))
    torch.testing.assert_close(state["0.running_var"], images.var((0, 2, 3)), rtol=5e-2, atol=0)
    assert not model[0].training
    assert model[0].momentum == 0.1


def test_candidates_meet_the_budget_and_the_best_comes_first() -> None:
    model, images = network(), torch.randn(8, 3, 32, 32)
    before = copy.deepcopy(model.state_dict())

    def evaluate(pruned: nn.Module) -> float:
        return -float(sum(p.numel() for p in pruned.parameters()))

    result = search_pruning(model, images[:1], evaluate, images, candidates=4, seed=3)
    metrics = [candidate.metric for candidate in result.candidates]
    assert metrics == sorted(metrics, reverse=True)
    assert len(metrics) == 4
    assert all(abs(candidate.macs_share - 0.5) <= 0.05 for candidate in result.candidates)
    pruned = copy.deepcopy(model)
    apply_plan_to_module(pruned, result.best)
    share = count_macs(pruned, images[:1]) / count_macs(model, images[:1])
    assert share == pytest.approx(result.candidates[0].macs_share)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again = search_pruning(model, images[:1], evaluate, images, candidates=4, seed=3)
    assert again.best.digest() == result.best.digest()


def test_an_impossible_budget_says_what_came_closest() -> None:
    with pytest.raises(UsageError, match="the closest keeps"):
        search_pruning(
            network(), torch.rand(1, 3, 32, 32), lambda _: 0.0, torch.rand(2, 3, 32, 32), macs_share=0.001,
            tolerance=1e-6, candidates=1,
        )  # fmt: skip
