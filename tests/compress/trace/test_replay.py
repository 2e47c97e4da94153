"""Numbers that a model's code fixes are noticed even where the pruned model runs without complaint."""

from __future__ import annotations

import math

import pytest
import torch
from benchmarks.masked_reference import masked_error, random_plan
from torch import Tensor, nn
from torch.nn import functional as F

from eightfold.compress.check import checked
from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.trace.trace import trace

IMAGE = torch.linspace(-1, 1, 2 * 3 * 12 * 12).reshape(2, 3, 12, 12)
TOKENS = torch.linspace(-1, 1, 2 * 5 * 12).reshape(2, 5, 12)


class FirstHalf(nn.Module):
    """Doubles the first 16 channels, however many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.free, self.head = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x[:, :16] *= 2
        out: Tensor = self.head(F.relu(self.free(x)))
        return out


class Scaled(nn.Module):
    """Attention whose scale is worked out from the width it finds."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(12, 32), nn.Linear(12, 32), nn.Linear(12, 32)
        self.out = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.query(x), self.key(x)
        weights = (query / math.sqrt(query.shape[-1])) @ key.transpose(1, 2)
        out: Tensor = self.out(weights.softmax(-1) @ self.value(x))
        return out


class StridedAttention(nn.Module):
    """Fused attention on a layout that torch splits into products, with the scale inside."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Conv1d(12, 96, 1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x.transpose(1, 2)).unflatten(1, (1, 96)).transpose(2, 3).chunk(3, -1)
        out: Tensor = self.out(F.scaled_dot_product_attention(query, key, value).squeeze(1))
        return out


class ScaledByTensor(Scaled):
    """The scale passes through a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.query(x), self.key(x)
        weights = (query @ key.transpose(1, 2)) / torch.sqrt(torch.tensor(query.shape[-1]))
        out: Tensor = self.out(weights.softmax(-1) @ self.value(x))
        return out


@pytest.mark.parametrize(("network", "x"), [(FirstHalf, IMAGE), (Scaled, TOKENS), (ScaledByTensor, TOKENS)])
def test_what_no_error_shows_is_left_whole(network: type[nn.Module], x: Tensor) -> None:
    torch.manual_seed(0)
    model = network()
    graph = trace(model, x)
    with pytest.warns(UserWarning, match="code fixes their size"):
        plan = checked(model, x, random_plan(graph), graph)
    assert masked_error(model, x, plan) < 1e-5


def test_attention_is_seen_whole_in_any_layout() -> None:
    graph = trace(StridedAttention(), TOKENS)
    assert any(group.frozen.startswith("the scale of attention") for group in graph.groups)


def test_a_scale_of_its_own_lets_the_head_width_shrink() -> None:
    class Fixed(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            mixed = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x), scale=0.25)
            out: Tensor = self.out(mixed)
            return out

    torch.manual_seed(0)
    model = Fixed()
    graph = trace(model, TOKENS)
    plan = checked(model, TOKENS, random_plan(graph), graph)
    assert set(plan.kept) == {"query.weight", "value.weight"}
    assert masked_error(model, TOKENS, plan) < 1e-5


def test_a_list_of_sizes_follows_by_position() -> None:
    graph = trace(Uneven(), TOKENS)
    first, last = ({p[0] for p in link.parts} for link in graph.sizes if link.attribute in ("parts[0]", "parts[2]"))
    assert first != last


class Uneven(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = [32, 24, 32]
        self.joint = nn.Linear(12, 88)
        self.a, self.b, self.c = nn.Linear(32, 8), nn.Linear(24, 8), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.joint(x).split(self.parts, -1)
        out: Tensor = self.a(first) + self.b(second) + self.c(third)
        return out


class OneOfTwo(nn.Module):
    """Splits two layers; only one of the splits is written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed, self.free, self.out = nn.Linear(12, 64), nn.Linear(12, 64), nn.Linear(96, 12)

    def forward(self, x: Tensor) -> Tensor:
        fixed = self.fixed(x).reshape(*x.shape[:2], 2, 32).flatten(2)
        first, second = self.free(x).chunk(2, -1)
        out: Tensor = self.out(F.relu(torch.cat([fixed, first * second], -1)))
        return out


def test_only_the_group_at_fault_stays_whole_in_every_module_of_the_class() -> None:
    model = nn.Sequential(OneOfTwo(), OneOfTwo())
    with pytest.warns(UserWarning, match=r"code fixes their size: 0\.fixed\.weight, 1\.fixed\.weight$"):
        plan = plan_module(model, TOKENS)
    assert {"0.free.weight", "1.free.weight"} <= set(plan.kept)
