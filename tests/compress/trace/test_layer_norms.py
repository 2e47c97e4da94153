"""Channels below layer norms, where a trace lets them go. The oracle: the kept channels normalized by their own mean
and variance, in float64, by the formula of the norm (Ba et al. 2016, arXiv:1607.06450, equation 3)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from benchmarks.masked_reference import random_plan
from torch import Tensor, nn
from torch.nn import functional as F

import eightfold as ef
from eightfold.compress.check import checked
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.trace import trace

WIDTH, EPSILON = 32, 1e-5
IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8, dtype=torch.float64).reshape(2, 3, 8, 8).mul(5).sin()


class Norm(nn.Module):
    """A norm over the channels of a map, in one of the ways in which models write it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.width = how, (WIDTH,)
        self.weight, self.bias = (nn.Parameter(torch.linspace(low, 1.5, WIDTH)) for low in (0.5, -1.5))
        self.inner = nn.LayerNorm(WIDTH, elementwise_affine=how != "bare", eps=EPSILON)
        self.group = nn.GroupNorm(1, WIDTH, eps=EPSILON)
        for module in (self.inner, self.group):
            if module.weight is not None:
                module.weight, module.bias = self.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor
        if self.how == "group":
            return self.group(x)  # type: ignore[no-any-return]  # torch declares no result
        if self.how in ("module", "bare"):
            out = self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return out
        if self.how == "function":
            out = F.layer_norm(x.permute(0, 2, 3, 1), self.width, self.weight, self.bias, EPSILON)
            return out.permute(0, 3, 1, 2)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        if self.how == "variance":
            variance, mean = torch.var_mean(x, dim=1, unbiased=False, keepdim=True)
            return weight * ((x - mean) * torch.rsqrt(variance + EPSILON)) + bias
        centred = x - x.mean(1, keepdim=True)
        square = centred.pow(2) if self.how == "power" else centred * centred
        return weight * (centred / torch.sqrt(square.mean(1, keepdim=True) + EPSILON)) + bias


WAYS = ("module", "bare", "function", "variance", "power", "product", "group")


def network(how: str) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Tanh(), Norm(how), nn.Conv2d(WIDTH, 5, 3), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers).double().eval()


def by_hand(model: nn.Sequential, kept: list[int], image: Tensor) -> Tensor:
    """The network with the channels `kept` alone."""
    make, act, norm, read, _ = (module for module in model)
    assert isinstance(norm, Norm)
    assert isinstance(read, nn.Conv2d)
    x = act(make(image))[:, kept]
    dims = (1, 2, 3) if norm.how == "group" else (1,)
    mean = x.mean(dims, keepdim=True)
    x = (x - mean) / ((x - mean).square().mean(dims, keepdim=True) + EPSILON).sqrt()
    if norm.how != "bare":
        x = x * norm.weight[kept, None, None] + norm.bias[kept, None, None]
    return F.conv2d(x, read.weight[:, kept], read.bias).mean((2, 3), keepdim=True)


@pytest.mark.parametrize("how", WAYS)
def test_a_norm_is_over_the_channels_that_are_left(how: str) -> None:
    model = network(how)
    assert trace(model, IMAGE).group("0.weight").frozen
    graph = trace(model, IMAGE, layer_norms=True)
    plan = checked(model, IMAGE, random_plan(graph), graph)
    kept = plan.kept["0.weight"].tolist()
    assert len(kept) == WIDTH // 2
    expected = by_hand(model, kept, IMAGE)
    apply_plan_to_module(model, plan)
    torch.testing.assert_close(model(IMAGE), expected)


@pytest.mark.parametrize("how", WAYS)
def test_the_same_in_an_onnx_file(how: str, tmp_path: Path) -> None:
    model = network(how)
    path = ef.export_onnx(copy.deepcopy(model).float(), tmp_path / "model.onnx", batch=2, image_size=8)
    plan = ef.plan_pruning(path, layer_norms=True)
    ef.apply_plan(path, plan, output=tmp_path / "pruned.onnx")
    (group,) = plan.groups
    session = onnxruntime.InferenceSession(tmp_path / "pruned.onnx")
    (seen,) = session.run(None, {session.get_inputs()[0].name: IMAGE.float().numpy()})
    expected = by_hand(model, list(group.kept), IMAGE).detach().numpy()
    np.testing.assert_allclose(seen, expected, rtol=1e-3, atol=1e-5)


class Merged(nn.Module):
    """Tokens side by side below one norm, as where Swin halves a map."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.norm, self.read = nn.Linear(12, WIDTH), nn.LayerNorm(2 * WIDTH), nn.Linear(2 * WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.make(x)
        out: Tensor = self.read(self.norm(torch.cat([x[:, ::2], x[:, 1::2]], -1)))
        return out


def test_channels_that_stand_twice_in_a_norm_leave_it_twice() -> None:
    torch.manual_seed(0)
    model, tokens = Merged().double().eval(), torch.randn(3, 6, 12, dtype=torch.float64)
    graph = trace(model, tokens, layer_norms=True)
    plan = checked(model, tokens, random_plan(graph), graph)
    kept = plan.kept["make.weight"]
    both = np.concatenate([kept, kept + WIDTH]).tolist()
    x = model.make(tokens)
    x = torch.cat([x[:, ::2], x[:, 1::2]], -1)[..., both]
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + model.norm.eps).sqrt()
    expected = F.linear(
        x * model.norm.weight[both] + model.norm.bias[both], model.read.weight[:, both], model.read.bias
    )
    apply_plan_to_module(model, plan)
    torch.testing.assert_close(model(tokens), expected)
    assert model.norm.normalized_shape == (WIDTH,)


class Attention(nn.Module):
    """Heads whose queries and keys are normalized; the width of the heads is a number beside their count."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.inner = heads, WIDTH
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.q_norm, self.k_norm = nn.LayerNorm(WIDTH // heads), nn.LayerNorm(WIDTH // heads)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = (layer(x).view(n, tokens, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, scale=0.3)
        out: Tensor = x + self.out(mixed.transpose(1, 2).reshape(n, tokens, self.inner))
        return out


def test_the_stream_loses_channels_and_attention_whole_heads() -> None:
    model = nn.Sequential(
        nn.Linear(12, WIDTH), nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
    )
    graph = trace(model.eval(), torch.randn(2, 6, 12), layer_norms=True)
    found = {group.id: (group.width, group.frozen) for group in graph.groups}
    assert found["0.weight"] == (WIDTH, "")
    assert found["2.q.weight"] == (4, "")


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, padding=1)


class Dissected(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (variance + 1e-5).sqrt(), self.bias, padding=1)


@pytest.mark.parametrize("layer", [Standardized, Dissected])
def test_standardized_weights_stay_whole(layer: type[nn.Conv2d]) -> None:
    """Nothing re-fits a weight that is computed from others."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), layer(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    graph = trace(model, IMAGE.float(), layer_norms=True)
    assert graph.group("0.weight").frozen


class Whole(nn.Module):
    """A norm over channels and positions, with a scale for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((16, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


def test_norms_over_positions_as_well_stay_whole() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Whole(), nn.Conv2d(16, 4, 1)).eval()
    assert trace(model, IMAGE.float(), layer_norms=True).group("0.weight").frozen.startswith("layer norm over channels")


def test_a_plan_says_whether_layer_norms_may_shrink(tmp_path: Path) -> None:
    """Only then: plans of before are the same to the byte."""
    model = network("module")
    assert b"layer_norms" not in _saved(ef.plan_pruning(model, IMAGE), tmp_path / "a.json")
    plan = ef.plan_pruning(model, IMAGE, layer_norms=True)
    assert b"layer_norms" in _saved(plan, tmp_path / "b.json")
    assert PrunePlan.load(tmp_path / "b.json") == plan


def _saved(plan: PrunePlan, path: Path) -> bytes:
    plan.save(path)
    return path.read_bytes()
