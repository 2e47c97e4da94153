"""Scales and shifts of norms that lost channels. The oracle: numpy's fit of a line, channel by channel."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import eightfold as ef
from eightfold.compress.compensate.compensate import compensate
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.errors import UsageError

WIDTH = 32


class Behind(nn.Module):
    """A residual branch that ends in a norm, which no layer reads by itself."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.make, self.norm, self.read = nn.Conv2d(3, WIDTH, 3), norm, nn.Conv2d(WIDTH, 4, 1)

    def normalized(self, x: Tensor) -> Tensor:
        x = self.make(x)
        if isinstance(self.norm, nn.GroupNorm):
            return self.norm(x)  # type: ignore[no-any-return]  # torch declares no result
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.read(torch.tanh(self.normalized(x)))
        return out


def seeded(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.4
    return model.double().eval()


NORMS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "without shift": lambda: nn.LayerNorm(WIDTH, bias=False),
    "group norm": lambda: nn.GroupNorm(1, WIDTH),
}


@pytest.mark.parametrize("name", NORMS)
def test_each_channel_is_a_line(name: str) -> None:
    original = seeded(Behind(NORMS[name]()))
    assert isinstance(original, Behind)
    images = torch.randn(40, 3, 10, 10, dtype=torch.float64)
    plan = ef.plan_pruning(original, images[:1], layer_norms=True)
    kept = plan.kept["make.weight"].tolist()
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    norm: Any = pruned.norm
    scale, shift = norm.weight.clone(), getattr(norm, "bias", None)
    with torch.no_grad():
        wanted = original.normalized(images)[:, kept].movedim(1, 0).flatten(1).numpy()
        raw = pruned.normalized(images)
        raw = (raw if shift is None else raw - shift[:, None, None]) / scale[:, None, None]
    seen = raw.movedim(1, 0).flatten(1).numpy()
    report = compensate(pruned, original, plan, images, batch=8)
    assert "norm.weight" in report.changed
    assert not torch.allclose(norm.weight, scale, rtol=1e-2)
    for channel, (x, y) in enumerate(zip(seen, wanted, strict=True)):
        line = np.polyfit(x, y, 1) if shift is not None else [x @ y / (x @ x)]
        found = [norm.weight[channel].item(), *([] if shift is None else [norm.bias[channel].item()])]
        np.testing.assert_allclose(found, line, rtol=5e-3, atol=5e-3)


class Tokens(nn.Module):
    """A transformer's stream: what a norm reads is added to, and read again."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.wide = nn.ModuleList(nn.Linear(WIDTH, 64) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(64, WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, wide, narrow in zip(self.norms, self.wide, self.narrow, strict=False):
            x = x + narrow(F.gelu(wide(norm(x))))
        out: Tensor = self.head(self.norms[2](x))
        return out


def test_a_stream_whose_channels_are_twins_loses_nothing() -> None:
    """Half of the channels repeat the others: mean and variance over one of each are those over all."""
    model = Tokens()
    torch.manual_seed(0)
    for parameter in (*model.embed.parameters(), *model.narrow.parameters()):
        parameter.data[WIDTH // 2 :] = parameter.data[: WIDTH // 2]
    for name, parameter in model.norms.named_parameters():
        nn.init.uniform_(parameter, 0.5, 1.5) if name.endswith("weight") else nn.init.normal_(parameter)
    tokens = torch.randn(64, 6, 12)
    plan = ef.plan_pruning(model, tokens[:1], layer_norms=True, keep={"embed.weight": 0.5}, keep_ratio=1.0)
    assert len(plan.groups) == 1
    chosen = plan.groups[0].model_copy(update={"kept": tuple(range(WIDTH // 2))})
    plan = plan.model_copy(update={"groups": (chosen,)})
    pruned = copy.deepcopy(model)
    apply_plan_to_module(pruned, plan)
    with torch.no_grad():
        before = (pruned(tokens) - model(tokens)).norm() / model(tokens).norm()
        compensate(pruned, model, plan, tokens)
        after = (pruned(tokens) - model(tokens)).norm() / model(tokens).norm()
    assert before > 0.1
    assert after < 0.02


def test_layers_alone_are_touched_without_layer_norms() -> None:
    original = seeded(Behind(nn.LayerNorm(WIDTH)))
    images = torch.randn(4, 3, 10, 10, dtype=torch.float64)
    plan = ef.plan_pruning(original, images[:1])
    pruned = copy.deepcopy(original)
    apply_plan_to_module(pruned, plan)
    assert compensate(pruned, original, plan, images).changed == ("make.weight", "read.weight")


@pytest.mark.parametrize("method", ["mean", "bn_beta", "none"])
def test_norms_that_nothing_refits_are_refused(method: str) -> None:
    original = seeded(Behind(nn.LayerNorm(WIDTH)))
    images = torch.randn(4, 3, 10, 10, dtype=torch.float64)
    with pytest.raises(UsageError, match=rf"compensation '{method}' .*; allowed: lsq; take lsq"):
        ef.prune(original, images[:1], layer_norms=True, compensation=method, images=images)
    plan = ef.plan_pruning(original, images[:1], layer_norms=True)
    if method != "none":
        with pytest.raises(UsageError, match="allowed: none or lsq"):
            compensate(copy.deepcopy(original), original, plan, images, method=method)
