from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from eightfold.compress.prune import prune_module
from eightfold.compress.surgery.artifacts import load_pruned, save_pruned
from eightfold.compress.surgery.blocks import Bypass, find_blocks, rank_blocks, remove_blocks
from eightfold.compress.surgery.surgery import applied, apply_plan_to_module
from eightfold.errors import PlanMismatchError, UnknownNameError, UsageError


class PreActivation(nn.Module):
    """The activation works in place on x, so that the stream is what the activation left."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.conv = nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(self.act(x))
        return out


class Leaky(nn.Module):
    def __init__(self, slope: float) -> None:
        super().__init__()
        self.conv, self.slope = nn.Conv2d(8, 8, 3, padding=1), slope

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x + self.conv(x), self.slope)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp(self.norm(x))
        return out


def lively(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            state = module.state_dict()
            state["weight"].uniform_(0.5, 1.5)
            state["bias"].normal_(0, 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return lively(torchvision.models.resnet18(weights=None, num_classes=10))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", [f"layer{i}.1" for i in range(1, 5)] + ["layer1.0"]),
        ("mobilenet_v2", [f"features.{i}" for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]),
        ("densenet121", []),
        ("squeezenet1_1", []),
    ],
)
def test_blocks_are_the_modules_that_add_to_their_input(name: str, expected: list[str], images: Tensor) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    blocks = find_blocks(model, [(images[:1],)])
    assert sorted(block.path for block in blocks) == sorted(expected)


@pytest.mark.parametrize("slope", [0.01, 0.1])
def test_a_removed_block_keeps_the_slope_of_its_activation(slope: float) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), Leaky(slope)), torch.randn(1, 3, 8, 8)
    blocks = find_blocks(model, [(x,)])
    remove_blocks(model, [block.removed() for block in blocks])
    torch.testing.assert_close(model(x), nn.functional.leaky_relu(model[0](x), slope))


def test_a_slope_that_no_bypass_has_is_no_block() -> None:
    assert not find_blocks(nn.Sequential(nn.Conv2d(3, 8, 1), Leaky(0.2)), [(torch.randn(1, 3, 8, 8),)])


@pytest.mark.parametrize(("name", "count"), [("efficientnet_b0", 9), ("convnext_tiny", 18), ("vit_b_32", 12)])
def test_other_ways_of_writing_a_residual(name: str, count: int) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    size = 224 if name.startswith("vit") else 64
    assert len(find_blocks(model, [(torch.rand(1, 3, size, size),)])) == count


def test_a_stream_changed_in_place_is_no_block(images: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), PreActivation())
    assert find_blocks(model, [(images,)]) == ()


def test_bypass_equals_the_block_with_a_constant_branch(resnet: nn.Module, images: Tensor) -> None:
    """With its last norm silenced, a block's branch is that norm's beta: bypassing it changes nothing."""
    model = copy.deepcopy(resnet)
    model.get_submodule("layer2.1.bn2").state_dict()["weight"].zero_()
    blocks = {block.path: block for block in find_blocks(model, [(images,)])}
    block = blocks["layer2.1"]
    expected = model(images)
    remove_blocks(model, [block.removed()], {block.path: block.mean})
    assert isinstance(model.get_submodule("layer2.1"), Bypass)
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(block.mean.float(), resnet.get_submodule("layer2.1.bn2").state_dict()["bias"])


def test_tokens_have_their_channels_last() -> None:
    model = nn.Sequential(nn.Linear(4, 16), Tokens())
    (block,) = find_blocks(model, [(torch.randn(2, 5, 4),)])
    assert (block.path, block.channel_dim, len(block.mean)) == ("1", -1, 16)


def test_ranking_by_contribution_and_by_norm_scale(resnet: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(resnet)
    model.get_submodule("layer3.1.bn2").state_dict()["weight"].mul_(1e-3)
    blocks = find_blocks(model, [(images,)])
    assert rank_blocks(blocks)[0].path == rank_blocks(blocks, "bn_scale")[0].path == "layer3.1"
    with pytest.raises(UnknownNameError, match="unknown block score 'size'"):
        rank_blocks(blocks, "size")


@pytest.mark.parametrize("compensation", ["none", "mean"])
def test_blocks_and_channels_go_in_one_plan(
    resnet: nn.Module, images: Tensor, compensation: str, tmp_path: Path
) -> None:
    model = copy.deepcopy(resnet)
    done = prune_module(model, images[:1], remove_blocks=2, compensation=compensation, images=images)
    assert len(done.plan.removed_blocks) == 2
    assert done.plan.groups
    for block in done.plan.removed_blocks:
        bypass = model.get_submodule(block.path)
        assert isinstance(bypass, Bypass)
        assert len(bypass.shift) == block.channels // 2
    save_pruned(model, done.plan, tmp_path / "pruned")

    def factory() -> nn.Module:
        return torchvision.models.resnet18(weights=None, num_classes=10)  # type: ignore[no-any-return]

    loaded = load_pruned(factory, tmp_path / "pruned").eval()
    torch.testing.assert_close(loaded(images), model(images))


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x + self.body(x)).relu()
        return out


def test_least_squares_makes_up_for_a_block() -> None:
    original = lively(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), Branch(), nn.Conv2d(16, 4, 3)))
    images = torch.randn(32, 3, 10, 10)
    errors = []
    for compensation in ("none", "mean", "lsq"):
        model = copy.deepcopy(original)
        prune_module(model, images[:1], rule="layer", remove_blocks=1, compensation=compensation, images=images)
        errors.append(float((model(images) - original(images)).norm().detach()))
    assert errors[2] < errors[1] < errors[0]


def test_removal_by_name_and_the_rule_layer(resnet: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(resnet)
    done = prune_module(model, images[:1], rule="layer", remove_blocks=["layer4.1"])
    assert [block.path for block in done.plan.removed_blocks] == ["layer4.1"]
    assert not done.plan.groups


def test_applied_puts_blocks_back(resnet: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(resnet)
    expected = model(images)
    plan = prune_module(copy.deepcopy(resnet), images[:1], remove_blocks=1, images=images).plan
    with applied(model, plan):
        assert any(isinstance(module, Bypass) for module in model.modules())
    torch.testing.assert_close(model(images), expected, rtol=0, atol=0)


def test_blocks_are_not_ranked_on_made_up_inputs(resnet: nn.Module, images: Tensor) -> None:
    """Without images only weights can rank them, or the user."""
    with pytest.raises(UsageError, match=r"2 residual blocks to be removed, and no images to rank them on.*bn_scale"):
        prune_module(copy.deepcopy(resnet), images[:1], remove_blocks=2)
    by_weights = prune_module(copy.deepcopy(resnet), images[:1], remove_blocks=2, block_score="bn_scale").plan
    with_images = prune_module(
        copy.deepcopy(resnet), images[:1], remove_blocks=2, block_score="bn_scale", images=images
    ).plan
    assert by_weights.removed_blocks == with_images.removed_blocks
    prune_module(copy.deepcopy(resnet), images[:1], remove_blocks=["layer4.1"], compensation="bn_beta")


def test_blocks_without_a_norm_have_no_rank_by_norms(images: Tensor) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.relu(self.conv(x))

    with pytest.raises(UsageError, match="1 of 0 residual blocks with a batch norm"):
        prune_module(nn.Sequential(Block(), Block()), images[:1], remove_blocks=1, block_score="bn_scale")


def test_wrong_blocks_are_told_plainly(resnet: nn.Module, images: Tensor) -> None:
    with pytest.raises(UsageError, match="at least one batch"):
        find_blocks(resnet, [])
    with pytest.raises(UnknownNameError, match="unknown residual block"):
        prune_module(copy.deepcopy(resnet), images[:1], remove_blocks=["layer4.0"])
    with pytest.raises(UsageError, match="9 of 5 residual blocks"):
        prune_module(copy.deepcopy(resnet), images[:1], remove_blocks=9, images=images)
    plan = prune_module(copy.deepcopy(resnet), images[:1], remove_blocks=["layer4.1"]).plan
    other: Callable[[], nn.Module] = lambda: nn.Sequential(nn.Conv2d(3, 8, 1))  # noqa: E731
    with pytest.raises(PlanMismatchError, match="no module"):
        apply_plan_to_module(other(), plan)
