"""Tiny networks, one for each way of coupling channels: a random plan must equal the original with zeroed channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from benchmarks.masked_reference import masked_error, random_plan
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torchvision.ops import DeformConv2d

from eightfold.compress.check import checked
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.trace import trace

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


def hooked(norm: Callable[..., nn.Module], layer: nn.Module) -> nn.Module:
    """torch's older norms of weights, by hooks, warn that there are newer ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return norm(layer)


class Normalized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class Stateful(nn.Module):
    """A convolutional recurrence that starts from zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.update = conv(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        for _ in range(2):
            state = torch.tanh(self.update(torch.cat([x, state], 1)))
        return state


class Deformable(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.offset, self.conv = conv(inputs, 18), DeformConv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x, self.offset(x))
        return out


class Unpooled(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        small, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(self.conv(small), places, [2, 2])


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=x.shape[-2:])
        return out


class Masked(nn.Module):
    mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(width) % 3 > 0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask[:, None, None]


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
    "weight norm by hooks": lambda: network(hooked(nn.utils.weight_norm, conv(32, 32)), conv(32, 32)),
    "spectral norm": lambda: network(parametrizations.spectral_norm(conv(32, 32)), conv(32, 32)),
    "spectral norm by hooks": lambda: network(hooked(nn.utils.spectral_norm, conv(32, 32)), conv(32, 32)),
    "normalized channels": lambda: network(Normalized()),
    "state of zeros": lambda: network(Stateful(32)),
    "deformable": lambda: network(Deformable(32, 48), out=48),
    "unpooled": lambda: network(Unpooled(32)),
    "Fourier transform": lambda: network(Spectrum(), conv(32, 32)),
    "mask buffer": lambda: network(Masked(32)),
    "functional weight": lambda: network(Standardized(32, 32, 3)),
    "upsample and pool": lambda: network(nn.Upsample(scale_factor=2), nn.MaxPool2d(2)),
    "in place": lambda: network(nn.Hardswish(inplace=True), nn.LeakyReLU(inplace=True)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_random_plan_equals_zeroed_channels(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    graph = trace(model, IMAGE)
    plan = checked(model, IMAGE, random_plan(graph), graph)
    assert plan.groups
    assert masked_error(model, IMAGE, plan) < 1e-5
    report = apply_plan_to_module(model, plan)
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
    assert masked_error(model, x, plan) < 1e-5
    apply_plan_to_module(model, plan)
    assert isinstance(model[2], Attention)
    assert (model[2].heads, model[2].head, model[2].inner) == (2, 8, 16)


@pytest.mark.parametrize("name", ["weight norm", "weight norm by hooks", "spectral norm", "spectral norm by hooks"])
def test_a_normed_weight_loses_inputs_and_outputs(name: str) -> None:
    graph = trace(NETWORKS[name](), IMAGE)
    assert all(group.width in (3, 5) for group in graph.groups if group.frozen)


def test_norm_groups_go_whole() -> None:
    graph = trace(NETWORKS["group norm"](), IMAGE)
    normed = next(group for group in graph.groups if group.id == "3.weight")
    assert (normed.width, normed.multiplicities) == (4, (8,))


class Sum(nn.Module):
    """What a sum over channels sees of a removed channel, behind some function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Conv2d(3, 32, 3), nn.Conv2d(1, 5, 3), function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.function(self.first(x)).sum(1, keepdim=True))
        return out


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "relu": (F.relu, True),
    "tanh": (torch.tanh, True),
    "square": (lambda x: x.pow(2), True),
    "divided": (lambda x: x / (1 + x.abs()), True),
    "multiplied by a gate": (lambda x: x * x.sigmoid(), True),
    "shifted": (lambda x: F.elu(x) + 1, False),
    "sigmoid": (torch.sigmoid, False),
    "exp": (torch.exp, False),
    "cosine": (torch.cos, False),
    "zero to the power": (lambda x: x.pow(0), False),
    "constant padding": (lambda x: F.pad(x, (1, 1), value=1.0), False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sum_over_channels_is_free_where_removed_ones_are_zero(name: str) -> None:
    torch.manual_seed(0)
    function, free = FUNCTIONS[name]
    model = Sum(function)
    graph = trace(model, IMAGE)
    group = graph.group("first.weight")
    assert ("" if free else "stay nonzero") in group.frozen
    assert bool(group.frozen) is not free
    assert masked_error(model, IMAGE, random_plan(graph)) < 1e-5


class Recurrent(nn.Module):
    """Columns of a map, read by a recurrent layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
        self.stem, self.norm = conv(3, 32), nn.BatchNorm2d(32)
        self.read: nn.RNNBase = layer(32, 48, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.relu(self.norm(self.stem(x))).mean(2).transpose(1, 2)
        out: Tensor = self.head(self.read(columns)[0][:, -1])
        return out


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_recurrent_layers_lose_inputs_and_units(kind: str) -> None:
    torch.manual_seed(0)
    model = Recurrent(kind).eval()
    graph = trace(model, IMAGE)
    assert {group.width for group in graph.free} == {32, 48}
    plan = checked(model, IMAGE, random_plan(graph), graph)
    assert masked_error(model, IMAGE, plan) < 1e-5
    apply_plan_to_module(model, plan)
    assert (model.read.input_size, model.read.hidden_size) == (16, 24)
    assert model.train()(IMAGE).shape == (2, 5)


def test_the_same_layer_twice_is_one_group_with_the_stem() -> None:
    graph = trace(NETWORKS["the same layer twice"](), IMAGE)
    tensors = {member.tensor for member in graph.group("0.weight").members}
    assert "3.layers.0.weight" in tensors
    assert [layer.weight for layer in graph.layers].count("3.layers.0.weight") == 2
