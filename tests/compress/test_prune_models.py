"""The spine on real networks: trace, plan, correctness rule, surgery, save and load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from benchmarks.masked_reference import masked_error, outputs, random_plan
from torch import nn

from eightfold.compress.modules.modules import shapes_of
from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.surgery.artifacts import load_pruned, save_pruned
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.macs import count_macs, count_parameters
from eightfold.compress.trace.trace import trace
from eightfold.errors import PlanMismatchError

IMAGE = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
NAMES = ("resnet18", "mobilenet_v2")


def lively(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and scales of a trained network's kind, so that every channel matters."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                assert tensor is not None
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
            for tensor in (module.bias, module.running_mean):
                assert tensor is not None
                tensor.data = 0.2 * torch.randn(tensor.shape, generator=generator)
    return model.eval()


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return lively(model)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_plans_equal_zeroed_channels(name: str, seed: int) -> None:
    model = build(name)
    plan = random_plan(trace(model, IMAGE), keep_ratio=0.5 if seed else 0.25, seed=seed)
    assert masked_error(model, IMAGE, plan) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_every_width_is_a_multiple_of_eight(name: str) -> None:
    model = build(name)
    plan = plan_module(model, IMAGE)
    report = apply_plan_to_module(model, plan)
    assert report.changed
    odd = [value for width in report.widths for value in width.after if value % 8]
    assert set(odd) <= {1, 3}  # depthwise kernels and the image
    for training in (True, False):
        assert model.train(training)(IMAGE.repeat(2, 1, 1, 1)).shape == (2, 1000)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.out_channels, module.in_channels // module.groups) == tuple(module.weight.shape[:2])


def test_tracing_and_planning_leave_the_model_as_it_was() -> None:
    model = build("mobilenet_v2").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan_module(model, IMAGE)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_save_and_load(tmp_path: Path) -> None:
    model = build("resnet18")
    plan = plan_module(model, IMAGE)
    apply_plan_to_module(model, plan)
    save_pruned(model, plan, tmp_path / "pruned")
    assert {path.name for path in (tmp_path / "pruned").iterdir()} == {"weights.safetensors", "plan.json"}
    loaded = load_pruned(lambda: build("resnet18"), tmp_path / "pruned")
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, IMAGE), outputs(loaded, IMAGE), strict=True))


def test_another_architecture_is_refused_with_the_first_tensor_and_both_shapes(tmp_path: Path) -> None:
    model = build("resnet18")
    plan = plan_module(model, IMAGE)
    apply_plan_to_module(model, plan)
    save_pruned(model, plan, tmp_path)
    with pytest.raises(PlanMismatchError, match=r"layer1\.0\.conv1\.weight.*\(64, 64, 1, 1\).*\(64, 64, 3, 3\)"):
        load_pruned(lambda: build("resnet50"), tmp_path)


def test_plan_says_the_shapes_that_surgery_gives() -> None:
    model = build("mobilenet_v2")
    plan = plan_module(model, IMAGE, rule="global", score="bn_scale")
    apply_plan_to_module(model, plan)
    assert dict(plan.pruned_shapes()) == dict(shapes_of(model))


def test_counts_fall() -> None:
    model = build("resnet18")
    macs, parameters = count_macs(model, IMAGE), count_parameters(model)
    apply_plan_to_module(model, plan_module(model, IMAGE))
    assert count_macs(model, IMAGE) < macs / 3
    assert count_parameters(model) < parameters / 3


@pytest.mark.parametrize("name", NAMES)
def test_macs_are_half_the_flops_of_torch(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = build(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(IMAGE)
    assert 2 * count_macs(model, IMAGE) == counter.get_total_flops()


def test_ignored_groups_stay_whole() -> None:
    plan = plan_module(build("resnet18"), IMAGE, ignore=("layer1.*",))
    assert not any(group.id.startswith("layer1.") for group in plan.groups)
    assert any(group.id.startswith("layer2.") for group in plan.groups)
