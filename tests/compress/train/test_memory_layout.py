"""Channels last while training: the same steps, given up where a network cannot work so, and gone afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eightfold.compress.train import memory_layout
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch, Hook, Run
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(4, 3, 8, 8, generator=GENERATOR)
TARGET = torch.randn(4, 6, 6, 6, generator=GENERATOR)


class Maps(nn.Module):
    """Two convolutions; `flat` looks at the order of a map in memory between them."""

    def __init__(self, *, flat: bool = False, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1)
        self.norm: Any = norm(8)
        self.flat = flat

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.first(x)).relu()
        if self.flat:
            x = x.view(len(x), -1).view(x.shape)
        return {"maps": self.last(x)}


class Seen(Hook):
    """The layouts of images and weights in each step."""

    def __init__(self) -> None:
        self.last: list[bool] = []

    def terms(self, run: Run, batch: Batch, outputs: Any) -> dict[str, Tensor]:
        assert outputs["maps"].is_contiguous()
        weight: Any = run.model.get_parameter("first.weight")
        both = [each.is_contiguous(memory_format=torch.channels_last) for each in (batch.inputs[0], weight)]
        assert len(set(both)) == 1
        self.last.append(both[0])
        return {}


def trained(model: nn.Module, checkpoint: Path | None = None) -> tuple[list[bool], list[float]]:
    optimizer, seen = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), Seen()
    done = fit(
        model,
        lambda number: Batch((IMAGES.roll(number, 0),), TARGET),
        optimizer,
        LoopOptions(steps=5),
        loss=lambda outputs, target: (outputs["maps"].view(-1) - target.view(-1)).square().mean(),
        hooks=[seen],
        checkpoint=checkpoint,
        devices=Devices("cpu", "off"),
    )
    return seen.last, [row["loss"] for row in done.rows]


def test_steps_are_those_of_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, other = Maps(), Maps()
    other.load_state_dict(model.state_dict())
    last, losses = trained(model)
    monkeypatch.setattr(memory_layout, "_gains", lambda _: False)
    first, expected = trained(other)
    assert (set(last), set(first)) == ({True}, {False})
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, tensor in model.state_dict().items():
        assert tensor.is_contiguous()
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "model", [Maps(flat=True), Maps(norm=lambda width: nn.GroupNorm(2, width)), Maps(norm=nn.InstanceNorm2d)]
)
def test_networks_that_keep_channels_first(model: nn.Module) -> None:
    """The trial leaves no trace in the statistics: five steps are counted."""
    last, losses = trained(model)
    assert set(last) == {False}
    assert losses[-1] < losses[0]
    assert all(int(count) == 5 for name, count in model.state_dict().items() if name.endswith("tracked"))


def test_vectors_have_no_channels() -> None:
    layout, model = memory_layout.MemoryLayout(), nn.Linear(4, 2)
    layout.choose(model, Batch((torch.zeros(1, 4),)), Devices("cpu", "off"), training=True)
    assert not layout.channels_last
