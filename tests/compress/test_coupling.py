"""Tiny networks, one for each way of coupling channels: a random plan must equal the original with zeroed channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from eightfold.compress.check import checked
from eightfold.compress.oracle import oracle_error, random_plan
from eightfold.compress.surgery import apply_plan
from eightfold.compress.trace import trace

IMAGE = torch.linspace(-1, 1, 2 * 3 * 12 * 12).reshape(2, 3, 12, 12)


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


class Halves(nn.Module):
    """Half batch norm, half instance norm, cut by an attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.split_at = width // 2
        self.batch, self.instance = nn.BatchNorm2d(self.split_at), nn.InstanceNorm2d(self.split_at)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, : self.split_at], x[:, self.split_at :]
        return torch.cat([self.batch(first.contiguous()), self.instance(second)], dim=1)


class Squeeze(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, 16), nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.up(F.relu(self.down(x.mean((2, 3))))).sigmoid()
        return x * gate[:, :, None, None]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, 2 * width), nn.BatchNorm2d(2 * width), nn.ReLU(), conv(2 * width, width))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, width).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.scale * self.body(x)
        return out


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Chunk(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.side = conv(width // 2, 24)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([first, second, self.side(second)], dim=1)


class Cut(nn.Module):
    """Unequal parts, cut where an attribute says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = width // 4
        self.body = conv(width - self.first, 24)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, : self.first], self.body(x[:, self.first :])], dim=1)


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.glu(x, dim=1)


class Twice(nn.Module):
    """The same layer used twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(width, width)] * 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class Standardized(nn.Conv2d):
    """A convolution whose weight is divided by its norm over each filter: no statistics over inputs change."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.abs().sqrt() * self.weight.sign(), self.bias, padding=1)


def head(width: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(width * 4, 5))


def network(*middle: nn.Module, width: int = 32, out: int = 32) -> nn.Module:
    return nn.Sequential(conv(3, width), nn.BatchNorm2d(width), nn.ReLU(), *middle, head(out))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: network(conv(32, 32)),
    "depthwise": lambda: network(conv(32, 32, groups=32), conv(32, 32)),
    "depth multiplier": lambda: network(conv(32, 64, groups=32), out=64),
    "grouped": lambda: network(conv(32, 64, groups=2), conv(64, 32)),
    "transposed": lambda: network(nn.ConvTranspose2d(32, 48, 2, stride=2), out=48),
    "transposed depthwise": lambda: network(nn.ConvTranspose2d(32, 32, 2, stride=2, groups=32)),
    "transposed grouped": lambda: network(nn.ConvTranspose2d(32, 64, 2, stride=2, groups=2), out=64),
    "residual with layer scale": lambda: network(Residual(32)),
    "half norms": lambda: network(Halves(32)),
    "squeeze and excite": lambda: network(Squeeze(32)),
    "channel shuffle": lambda: network(Shuffle(), conv(32, 32)),
    "chunk and concatenate": lambda: network(Chunk(32), out=56),
    "cut by an attribute": lambda: network(Cut(32), out=32),
    "gated": lambda: network(Gate(), out=16),
    "prelu": lambda: network(nn.PReLU(32)),
    "pixel shuffle": lambda: network(conv(32, 64), nn.PixelShuffle(2), conv(16, 16), out=16),
    "pixel unshuffle": lambda: network(nn.PixelUnshuffle(2), out=128),
    "group norm": lambda: network(conv(32, 32), nn.GroupNorm(4, 32), conv(32, 32)),
    "group norm of single channels": lambda: network(conv(32, 32), nn.GroupNorm(32, 32), conv(32, 32)),
    "the same layer twice": lambda: network(Twice(32)),
    "weight norm": lambda: network(parametrizations.weight_norm(conv(32, 32)), conv(32, 32)),
    "functional weight": lambda: network(Standardized(32, 32, 3)),
    "upsample and pool": lambda: network(nn.Upsample(scale_factor=2), nn.MaxPool2d(2)),
    "in place": lambda: network(nn.Hardswish(inplace=True), nn.LeakyReLU(inplace=True)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_random_plan_equals_zeroed_channels(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    graph = trace(model, IMAGE)
    plan = checked(model, IMAGE, random_plan(graph), graph)
    assert plan.groups
    assert oracle_error(model, IMAGE, plan) < 1e-5
    report = apply_plan(model, plan)
    assert report.parameters_after < report.parameters_before
    assert model.train()(IMAGE).shape == (2, 5)


@pytest.mark.parametrize("name", ["chunk and concatenate", "cut by an attribute", "half norms", "gated"])
def test_nothing_is_left_whole_needlessly(name: str) -> None:
    graph = trace(NETWORKS[name](), IMAGE)
    assert all(group.width in (3, 5) for group in graph.groups if group.frozen)


class Attention(nn.Module):
    """Self-attention whose head width is fixed and whose number of heads is an attribute."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head, self.inner = heads, width // heads, width
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, self.head).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(mixed.transpose(1, 2).reshape(n, tokens, self.inner))
        return out


def test_whole_heads_go_where_the_head_width_cannot() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.LayerNorm(32), Attention(32, 4), nn.LayerNorm(32))
    x = torch.randn(2, 5, 12)
    graph = trace(model, x)
    heads = graph.group("2.qkv.weight")
    assert (heads.width, heads.frozen) == (4, "")
    plan = checked(model, x, random_plan(graph), graph)
    assert len(plan.kept["2.qkv.weight"]) == 2
    assert oracle_error(model, x, plan) < 1e-5
    apply_plan(model, plan)
    assert isinstance(model[2], Attention)
    assert (model[2].heads, model[2].head, model[2].inner) == (2, 8, 16)


def test_weight_norm_loses_outputs_only() -> None:
    graph = trace(NETWORKS["weight norm"](), IMAGE)
    assert any("weight norm over inputs" in group.frozen for group in graph.groups)
    outputs = [g for g in graph.free if "3.parametrizations.weight.original0" in {m.tensor for m in g.members}]
    assert [group.width for group in outputs] == [32]


def test_the_same_layer_twice_is_one_group_with_the_stem() -> None:
    graph = trace(NETWORKS["the same layer twice"](), IMAGE)
    tensors = {member.tensor for member in graph.group("0.weight").members}
    assert "3.layers.0.weight" in tensors
    assert [layer.weight for layer in graph.layers].count("3.layers.0.weight") == 2
