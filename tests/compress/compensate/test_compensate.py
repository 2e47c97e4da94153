"""Compensation against two oracles: a network whose removed channels are copies of kept ones loses nothing under least
squares; and a network whose removed channels are constant is what BN-beta compensation makes exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eightfold.compress.compensate.compensate import METHODS, compensate
from eightfold.compress.compensate.constants import silenced
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.prune import prune_module
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.groups import ChannelGraph, Group, Member
from eightfold.compress.trace.trace import trace
from eightfold.errors import UnknownNameError, UsageError


def conv_bn(inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1, act: nn.Module | None = None) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act or nn.ReLU())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.a = nn.Sequential(conv_bn(16, 8), conv_bn(8, 16, act=nn.Identity()))
        self.b = nn.Sequential(conv_bn(16, 8), conv_bn(8, 16, act=nn.Identity()))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.a(x)).relu()
        x = (x + self.b(x)).relu()
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Concatenation(nn.Module):
    """Branches side by side, and a batch norm before the convolution, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv_bn(3, 16), nn.Conv2d(3, 16, 1)
        self.norm = nn.BatchNorm2d(32)
        self.join = nn.Conv2d(32, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.left(x), self.right(x)], 1)
        out: Tensor = self.join(self.norm(joined).relu())
        return out


class Shared(nn.Module):
    """One head on two scales, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv_bn(3, 16), conv_bn(16, 16)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stem(x)
        return self.head(fine), self.head(self.down(fine)[..., ::2, ::2])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Sequential(conv_bn(3, 16), conv_bn(16, 16), nn.Conv2d(16, 4, 1)),
    "depthwise": lambda: nn.Sequential(conv_bn(3, 16), conv_bn(16, 16, groups=16), nn.Conv2d(16, 4, 1)),
    "grouped": lambda: nn.Sequential(conv_bn(3, 16), conv_bn(16, 16, groups=2), nn.Conv2d(16, 4, 1)),
    "transposed": lambda: nn.Sequential(conv_bn(3, 16), nn.ConvTranspose2d(16, 16, 2, stride=2), nn.Conv2d(16, 4, 1)),
    "linear": lambda: nn.Sequential(
        conv_bn(3, 16), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 3)
    ),
    "residual": Residual,
    "concatenation": Concatenation,
    "shared": Shared,
}


def lively(model: nn.Module) -> nn.Module:
    """In eval mode, double precision, with norms that are not the identity."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            state = module.state_dict()
            for name in ("weight", "running_var"):
                state[name].uniform_(0.5, 1.5)
            for name in ("bias", "running_mean"):
                state[name].normal_(0.0, 0.5)
    return model.double().eval()


def half_plan(graph: ChannelGraph) -> PrunePlan:
    kept = {group.id: np.arange(group.width // 2) for group in graph.free if group.width > 1}
    return PrunePlan.from_graph(graph, kept, multiple=1)


def make_second_half_a_copy(model: nn.Module, group: Group) -> None:
    tensors = model.state_dict()
    for member in group.members:
        if member.role != "consumer" and tensors[member.tensor].dim():
            source, target = (_positions(member, group, half) for half in (0, 1))
            tensor = tensors[member.tensor]
            tensor.index_copy_(member.dim, target, tensor.index_select(member.dim, source))


def _positions(member: Member, group: Group, half: int) -> Tensor:
    indices, channels = member.indices(), member.channels()
    first = half * (group.width // 2)
    mine = (channels >= first) & (channels < first + group.width // 2)
    return torch.from_numpy(indices[mine][np.argsort(channels[mine], kind="stable")])


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        result = model(x)
    return torch.cat([part.flatten() for part in result]) if isinstance(result, tuple) else result


def relative_error(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    expected = outputs(other, x)
    return float((outputs(model, x) - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", NETWORKS)
def test_least_squares_loses_nothing_when_the_removed_channels_are_copies(name: str) -> None:
    original = lively(NETWORKS[name]())
    images = torch.randn(64, 3, 8, 8, dtype=torch.float64)
    graph = trace(original, images[:1])
    plan = half_plan(graph)
    assert plan.groups
    for group in plan.groups:
        make_second_half_a_copy(original, graph.group(group.id))
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    before = relative_error(pruned, original, images)
    report = compensate(pruned, original, plan, images, method="lsq", batch=8)
    fresh = torch.randn(8, 3, 8, 8, dtype=torch.float64)
    assert before > 0.05
    assert relative_error(pruned, original, fresh) < 2e-2 * before
    assert set(report.changed) == {layer.weight for layer in graph.layers}


@pytest.mark.parametrize("name", ["conv", "depthwise", "residual", "concatenation"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.LeakyReLU])
def test_bn_beta_is_exact_away_from_padding(name: str, activation: Callable[[], nn.Module]) -> None:
    original = lively(NETWORKS[name]())
    _swap_relu(original, activation)
    for module in original.modules():  # no padding anywhere, so that every pixel is interior
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name != "depthwise":
            module.padding_mode = "replicate"
            module._reversed_padding_repeated_twice = [1, 1, 1, 1]
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    graph = trace(original, images[:1])
    plan = half_plan(graph)
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    compensate(pruned, original, plan, images, method="bn_beta", graph=graph)
    assert relative_error(pruned, silenced(original, plan), images) < 1e-9


def _swap_relu(model: nn.Module, activation: Callable[[], nn.Module]) -> None:
    for module in list(model.modules()):
        for child, value in module.named_children():
            if isinstance(value, nn.ReLU):
                setattr(module, child, activation())


def test_bn_beta_is_exact_in_the_interior_behind_zero_padding() -> None:
    original = lively(NETWORKS["conv"]())
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    plan = half_plan(trace(original, images[:1]))
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    compensate(pruned, original, plan, images, method="bn_beta")
    seen, expected = outputs(pruned, images), outputs(silenced(original, plan), images)
    torch.testing.assert_close(seen[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    assert not torch.allclose(seen, expected)


def test_bn_beta_needs_no_images() -> None:
    """Which images it is given has never made a difference."""
    original, images = lively(NETWORKS["conv"]()), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    with_images, without = copy.deepcopy(original), copy.deepcopy(original)
    prune_module(with_images, images[:1], compensation="bn_beta", images=images)
    prune_module(without, torch.zeros_like(images[:1]), compensation="bn_beta")
    torch.testing.assert_close(without(images), with_images(images), rtol=0, atol=0)
    with pytest.raises(UsageError, match="got no images"):
        prune_module(copy.deepcopy(original), images[:1], compensation="mean")


def test_mean_is_exact_for_constant_channels_and_a_linear_consumer() -> None:
    first = nn.Linear(6, 16)
    first.weight.data[8:] = 0
    original = lively(nn.Sequential(first, nn.ReLU(), nn.Linear(16, 3)))
    rows = torch.randn(10, 6, dtype=torch.float64)
    plan = half_plan(trace(original, rows))
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    compensate(pruned, original, plan, rows, method="mean")
    assert relative_error(pruned, original, rows) < 1e-12


def test_modes_and_the_original_are_left_as_they_were() -> None:
    original = lively(NETWORKS["conv"]()).train()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    plan = half_plan(trace(original, images[:1]))
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    before = copy.deepcopy(original.state_dict())
    for method in METHODS:
        compensate(pruned, original, plan, images, method=method)
    assert original.training
    assert pruned.training
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_small_memory_budget_gives_nearly_the_same_network() -> None:
    original = lively(NETWORKS["residual"]())
    images = torch.randn(32, 3, 24, 24, dtype=torch.float64)
    plan = half_plan(trace(original, images[:1]))
    bare = copy.deepcopy(original)
    apply_plan_to_module(bare, plan)
    errors = []
    for memory_mb in (0, 64):
        pruned = copy.deepcopy(bare)
        compensate(pruned, original, plan, images, method="lsq", batch=4, memory_mb=memory_mb)
        errors.append(relative_error(pruned, original, images))
    # A layer sees the 2304 positions of one batch instead of eight times as many: next to what removal costs, nothing.
    assert errors[0] - errors[1] < 0.02 * relative_error(bare, original, images)


def test_a_batch_may_be_a_tuple_of_arguments() -> None:
    original = lively(NETWORKS["conv"]())
    batches = [(torch.randn(4, 3, 8, 8, dtype=torch.float64),) for _ in range(2)]
    plan = half_plan(trace(original, batches[0]))
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    assert compensate(pruned, original, plan, batches, method="mean").changed


def test_wrong_arguments_are_told_plainly() -> None:
    model = lively(NETWORKS["conv"]())
    plan = half_plan(trace(model, torch.randn(1, 3, 8, 8, dtype=torch.float64)))
    with pytest.raises(UnknownNameError, match="did you mean 'lsq'"):
        compensate(model, model, plan, torch.zeros(1, 3, 8, 8), method="lqs")
    with pytest.raises(UsageError, match="no images"):
        compensate(model, model, plan, [], method="lsq")


def test_a_layer_without_a_place_for_an_offset_is_named() -> None:
    original = lively(nn.Sequential(conv_bn(3, 16), nn.Conv2d(16, 4, 1, bias=False)))
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    plan = half_plan(trace(original, images[:1]))
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    report = compensate(pruned, original, plan, images, method="mean")
    assert report.without_sink == ("1.weight",)
    assert "1.weight" in report.describe()
