from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from benchmarks.masked_reference import outputs
from torch import nn

from eightfold.compress.inspection import inspect_module
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.plan_changes import diff_plans, merge_plans
from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.errors import PlanMismatchError

IMAGE = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "small densenet":
        return torchvision.models.DenseNet(16, (2, 3), 32).eval()  # type: ignore[no-any-return]  # untyped library
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "small densenet", "shufflenet_v2_x1_0"])
def test_iterative_pruning_is_one_plan_against_the_original(name: str) -> None:
    model = build(name)
    original = copy.deepcopy(model)
    first = plan_module(model, IMAGE, keep_ratio=0.75, ignore=("layer1.*", "features.denseblock2.*", "stage2.*"))
    apply_plan_to_module(model, first)
    second = plan_module(model, IMAGE, keep_ratio=0.5, score="l1")
    apply_plan_to_module(model, second)
    merged = PrunePlan.from_json(merge_plans(first, second).to_json())
    apply_plan_to_module(original, merged)
    assert all(torch.equal(a, b) for a, b in zip(outputs(original, IMAGE), outputs(model, IMAGE), strict=True))


def test_plans_that_do_not_follow_each_other_are_refused() -> None:
    plan = plan_module(build("resnet18"), IMAGE)
    with pytest.raises(PlanMismatchError, match="merge a plan with one that was made after it"):
        merge_plans(plan, plan)


def test_diff_names_groups_and_settings() -> None:
    model = build("resnet18")
    first, second = (plan_module(model, IMAGE, keep_ratio=ratio) for ratio in (0.5, 0.75))
    text = diff_plans(first, second).describe()
    assert "budget: keep ratio 0.5 -> keep ratio 0.75" in text
    assert "layer1.0.conv1.weight: keeps 32 -> 48 of 64, 32 in common" in text
    assert diff_plans(first, first).describe() == "the plans keep the same channels"


def test_inspection_tells_size_cost_and_what_is_frozen() -> None:
    seen = inspect_module(build("resnet18"), IMAGE)
    assert seen.parameters == 11_689_512
    assert sum(share.parameters for share in seen.shares) == seen.parameters
    assert sum(share.macs for share in seen.shares) == seen.macs
    text = seen.describe()
    assert "output of the model" in text
    assert "widths that are no multiple of 8: 0" in text  # the three channels of an image are no odd width
