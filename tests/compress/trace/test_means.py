"""Means over channels: a weight takes what changes with their number. The oracle: zeroed channels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks.masked_reference import masked_error, random_plan
from torch import Tensor, nn
from torch.nn import functional as F

import eightfold as ef
from eightfold.compress.check import checked
from eightfold.compress.onnx.graph_file import open_onnx
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.plan_changes import merge_plans
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.trace import trace

IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8, dtype=torch.float64).reshape(2, 3, 8, 8)
TOKENS = torch.linspace(-1, 1, 3 * 5 * 12, dtype=torch.float64).reshape(3, 5, 12).sin()
WIDTH = 32


class ResponseNorm(nn.Module):
    """The global response norm of ConvNeXtV2."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.linspace(0.5, 1.5, width)[:, None, None]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        out: Tensor = x + self.weight * (x * size / (size.mean(1, keepdim=True) + 1e-7)) + self.bias
        return out


class RootMeanSquare(nn.Module):
    """An RMS norm of channels-first maps: `kind` says how its scale is written."""

    def __init__(self, kind: str, width: int = WIDTH) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.linspace(0.1, 0.5, width)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        square = x.square().mean(1, keepdim=True)
        if self.kind == "divided":
            return x / torch.sqrt(1e-7 + square) * self.weight
        if self.kind == "clamped":
            return x * square.clamp(min=1e-7).pow(-0.5) * self.weight
        scaled = x * torch.rsqrt(square + 1e-7)
        if self.kind == "added":
            return scaled * (1 + self.weight)
        return scaled if self.kind == "none" else torch.addcmul(torch.zeros(()).to(x), scaled, self.weight)


class AsTokens(nn.Module):
    """A norm over the last dimension, of maps."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class Gate(nn.Module):
    """A map of mean activations in front of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.conv(x.mean(1, keepdim=True)).sigmoid()
        return x * gate


def network(*middle: nn.Module) -> nn.Module:
    first, last = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 5, 3)
    return nn.Sequential(first, nn.Tanh(), *middle, last, nn.AdaptiveAvgPool2d(1)).double().eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "global response norm": lambda: network(ResponseNorm()),
    "torch's RMS norm": lambda: network(AsTokens(nn.RMSNorm(WIDTH, eps=1e-7))),
    "RMS norm by division": lambda: network(RootMeanSquare("divided")),
    "RMS norm that clamps": lambda: network(RootMeanSquare("clamped")),
    "scale plus one": lambda: network(RootMeanSquare("added")),
    "no scale: the layer behind it": lambda: network(RootMeanSquare("none")),
    "fused product": lambda: network(RootMeanSquare("fused")),
    "a gate of means": lambda: network(Gate()),
}


def seeded(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.rand_like(parameter)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_the_pruned_network_equals_zeroed_channels(name: str) -> None:
    model = seeded(NETWORKS[name]())
    graph = trace(model, IMAGE)
    assert not graph.group("0.weight").frozen
    plan = checked(model, IMAGE, random_plan(graph), graph)
    assert len(plan.kept["0.weight"]) == WIDTH // 2
    assert masked_error(model, IMAGE, plan) < 1e-5  # the small constant against a division by zero
    assert masked_error(model, IMAGE, plan.model_copy(update={"scales": ()})) > 1e-2


class Attention(nn.Module):
    """Query and key are normalized; with a `scale` of its own, the width of its heads may change."""

    def __init__(self, norm: Callable[[int], nn.Module], scale: float | None, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head, self.inner, self.scale = heads, WIDTH // heads, WIDTH, scale
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.q_norm, self.k_norm = norm(self.head), norm(self.head)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = (layer(x).view(n, tokens, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, scale=self.scale)
        out: Tensor = x + self.out(mixed.transpose(1, 2).reshape(n, tokens, self.inner))
        return out


@pytest.mark.parametrize(
    ("norm", "scale", "width"),
    [(nn.RMSNorm, 0.3, 8), (nn.RMSNorm, None, 4), (nn.LayerNorm, 0.3, 4)],
    ids=["the width of heads", "the scale counts it: heads", "layer norm: heads"],
)
def test_normalized_queries_lose_channels_or_heads(
    norm: Callable[[int], nn.Module], scale: float | None, width: int
) -> None:
    stream = nn.Linear(12, WIDTH), nn.RMSNorm(WIDTH), Attention(norm, scale), nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 3)
    model = seeded(nn.Sequential(*stream).double().eval())
    graph = trace(model, TOKENS)
    assert (graph.group("2.q.weight").width, graph.group("2.q.weight").frozen) == (width, "")
    plan = checked(model, TOKENS, random_plan(graph, multiple=4), graph)
    assert {"0.weight", "2.q.weight"} <= plan.kept.keys()
    assert masked_error(model, TOKENS, plan) < 1e-5


class Mean(nn.Module):
    """A mean over channels that `use` reads."""

    def __init__(self, use: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.use = nn.Parameter(torch.ones(WIDTH, 1, 1)), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, x.mean(1, keepdim=True), self.weight)


FROZEN: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "subtracted": lambda x, mean, weight: x - mean,
    "behind a sigmoid": lambda x, mean, weight: x * mean.sigmoid() * weight,
    "added to": lambda x, mean, weight: x * (mean + 0.5) * weight,
    "a weight that others use": lambda x, mean, weight: x * mean * weight + x * weight,
    "two powers": lambda x, mean, weight: x * mean * weight + x * mean * mean * weight,
    "a concatenation": lambda x, mean, weight: torch.cat([x, mean], 1)[:, 1:] * weight,
    "a sum of scaled and plain": lambda x, mean, weight: (x + x * mean) * weight,
    "rounded": lambda x, mean, weight: x * torch.div(mean, 0.25, rounding_mode="floor") * weight,
    "offset": lambda x, mean, weight: x * x.sigmoid().mean(1, keepdim=True) * weight,
}


@pytest.mark.parametrize("name", FROZEN)
def test_what_no_weight_makes_good_stays_whole(name: str) -> None:
    model = seeded(network(Mean(FROZEN[name])))
    graph = trace(model, IMAGE)
    assert graph.group("0.weight").frozen
    assert masked_error(model, IMAGE, random_plan(graph)) < 1e-12


def test_a_mean_as_an_output_stays_whole() -> None:
    model = nn.Sequential(nn.Conv2d(3, WIDTH, 3), Mean(lambda x, mean, weight: mean)).double()
    assert trace(model, IMAGE).group("0.weight").frozen == "output of the model"


def test_a_plan_keeps_the_factor_and_a_merged_one_has_both(tmp_path: Path) -> None:
    """Pruned twice, and by one plan that holds both: the same network."""
    original = seeded(NETWORKS["global response norm"]())
    first = random_plan(trace(original, IMAGE), keep_ratio=0.75)
    first.save(tmp_path / "plan.json")
    assert PrunePlan.load(tmp_path / "plan.json") == first
    twice, at_once = copy.deepcopy(original), copy.deepcopy(original)
    apply_plan_to_module(twice, first)
    torch.testing.assert_close(
        twice.get_parameter("2.weight"), original.get_parameter("2.weight")[list(first.kept["0.weight"])] * 32 / 24
    )
    second = random_plan(trace(twice, IMAGE), keep_ratio=0.5, seed=1)
    apply_plan_to_module(twice, second)
    apply_plan_to_module(at_once, merge_plans(first, second))
    torch.testing.assert_close(at_once(IMAGE), twice(IMAGE))


@pytest.mark.parametrize("name", ["global response norm", "torch's RMS norm", "scale plus one"])
def test_the_same_in_an_onnx_file(name: str, tmp_path: Path) -> None:
    model = seeded(NETWORKS[name]()).float()
    path = ef.export_onnx(model, tmp_path / "model.onnx", batch=1, image_size=8)
    module = open_onnx(path).module
    image = IMAGE[:1].float()
    graph = trace(module, (image,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = checked(module, (image,), random_plan(graph), graph)
    assert plan.groups
    assert plan.scales
    assert masked_error(module, (image,), plan) < 1e-5
