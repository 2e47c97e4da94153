"""Surgery on networks in use: optimizers, tied weights, wrappers, sub-modules, restoring."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from benchmarks.masked_reference import masked_error, outputs, random_plan
from torch import Tensor, nn
from torch.nn import functional as F

from eightfold.compress.modules.modules import shapes_of
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.surgery.artifacts import load_pruned, save_pruned
from eightfold.compress.surgery.surgery import applied, apply_plan_to_module
from eightfold.compress.trace.trace import trace
from eightfold.errors import ModelError, PlanMismatchError, TraceError

IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 48, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 5),
    )  # fmt: skip


def test_optimizer_state_loses_the_same_channels() -> None:
    model = small()
    optimizer = torch.optim.Adam(model.parameters())
    model(IMAGE).sum().backward()
    optimizer.step()
    weight = model[3].weight
    assert isinstance(weight, nn.Parameter)
    before = optimizer.state[weight]["exp_avg"].clone()
    plan = plan_module(model, IMAGE)
    apply_plan_to_module(model, plan, optimizer=optimizer)
    assert model[3].weight is weight
    rows, columns = plan.kept["3.weight"], plan.kept["0.weight"]
    assert torch.equal(optimizer.state[weight]["exp_avg"], before[rows][:, columns])
    assert weight.grad is not None
    assert weight.grad.shape == weight.shape
    model(IMAGE).sum().backward()
    optimizer.step()


class Tied(nn.Module):
    """An encoder whose transposed weight is the decoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(12, 32), nn.Linear(32, 12)
        self.again = nn.Linear(12, 32)
        self.again.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.encode(x))
        out: Tensor = F.relu(self.again(self.decode(hidden))) @ self.encode.weight
        return out


def test_tied_weights_stay_tied() -> None:
    torch.manual_seed(0)
    model, x = Tied(), torch.randn(4, 12)
    plan = random_plan(trace(model, x))
    assert plan.groups
    assert masked_error(model, x, plan) < 1e-5
    apply_plan_to_module(model, plan)
    assert model.again.weight is model.encode.weight
    assert model.again.out_features == model.encode.out_features == 16


def test_frozen_parameters_are_pruned_and_stay_frozen() -> None:
    model = small()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    apply_plan_to_module(model, plan_module(model, IMAGE))
    assert not any(parameter.requires_grad for parameter in model[0].parameters())
    assert all(parameter.requires_grad for parameter in model[3].parameters())


def test_a_backbone_alone_keeps_what_the_rest_sees() -> None:
    torch.manual_seed(0)
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    image = torch.rand(1, 3, 64, 64)
    shapes = {name: value.shape for name, value in model.backbone(image).items()}
    apply_plan_to_module(model.backbone, plan_module(model.backbone, image))
    assert {name: value.shape for name, value in model.backbone(image).items()} == shapes
    assert model(image)["out"].shape == (1, 21, 64, 64)


def test_data_parallel_is_looked_through(tmp_path: Path) -> None:
    model = small()
    wrapped = nn.DataParallel(model)
    plan = plan_module(wrapped, IMAGE)
    apply_plan_to_module(wrapped, plan)
    save_pruned(wrapped, plan, tmp_path / "pruned")
    loaded = load_pruned(small, tmp_path / "pruned")
    assert dict(shapes_of(loaded)) == dict(shapes_of(model))


def test_applied_puts_everything_back() -> None:
    model = small()
    before, shapes = outputs(model, IMAGE), dict(shapes_of(model))
    with applied(model, plan_module(model, IMAGE)):
        assert model[0].out_channels == 16
    assert model[0].out_channels == 32
    assert dict(shapes_of(model)) == shapes
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(model, IMAGE), strict=True))


def test_an_edited_plan_is_applied() -> None:
    model = small()
    plan = plan_module(model, IMAGE)
    text = plan.to_json()
    edited = plan.model_copy(update={"groups": plan.groups[:1]})
    assert PrunePlan.from_json(text) == plan
    apply_plan_to_module(model, edited)
    assert model[0].out_channels == 16
    assert model[3].out_channels == 48


def test_a_plan_is_not_applied_twice() -> None:
    model = small()
    plan = plan_module(model, IMAGE)
    apply_plan_to_module(model, plan)
    with pytest.raises(PlanMismatchError, match=r"'0\.weight' has shape \(16, 3, 3, 3\); allowed: \(32, 3, 3, 3\)"):
        apply_plan_to_module(model, plan)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    model = small()
    plan = plan_module(model, IMAGE)
    apply_plan_to_module(model, plan)
    save_pruned(model, plan, tmp_path / "pruned")
    (tmp_path / "pruned" / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="allowed: a safetensors file"):
        load_pruned(small, tmp_path / "pruned")


def test_a_script_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(small())
    with pytest.raises(TraceError, match="TorchScript module; allowed: an ordinary"):
        trace(scripted, IMAGE)


def test_a_model_that_does_not_run_is_told() -> None:
    with pytest.raises(TraceError, match="does not run on the example inputs"):
        trace(small(), torch.zeros(1, 4, 16, 16))


class HardCoded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x)).reshape(-1, 2, 16).flatten(1)
        out: Tensor = self.last(F.relu(self.second(hidden)))
        return out


def test_a_size_written_into_the_code_leaves_its_group_whole_and_the_rest_pruned() -> None:
    model, x = HardCoded(), torch.randn(4, 8)
    with pytest.warns(UserWarning, match=r"code fixes their size: first\.weight"):
        plan = plan_module(model, x)
    assert list(plan.kept) == ["second.weight"]
