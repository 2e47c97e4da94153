"""Recoverability: a block whose branch is linear in its input goes before one that contributes less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eightfold.compress.surgery.blocks import choose_blocks, find_blocks
from eightfold.errors import UnknownNameError


class Branch(nn.Module):
    def __init__(self, scale: float, linear: bool) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1)
        self.scale, self.linear = scale, linear

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x)
        return x + self.scale * (mixed if self.linear else mixed.abs())  # type: ignore[no-any-return]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), Branch(1.0, linear=True), Branch(0.5, linear=False)).eval()


def images() -> list[tuple[Tensor]]:
    return [(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)),) for seed in range(2)]


def test_what_a_linear_map_replaces_goes_first() -> None:
    model = network()
    assert [block.path for block in choose_blocks(model, images(), 1, "recoverability")] == ["1"]
    assert [block.path for block in choose_blocks(model, images(), 1, "contribution")] == ["2"]


def test_the_unexplained_energy_is_that_of_a_regression() -> None:
    model = network()
    block = {block.path: block for block in find_blocks(model, images(), fit=True)}["2"]
    with torch.no_grad():
        x = torch.cat([model[1](model[0](args[0])) for args in images()])
        y = model[2](x)
    rows = x.double().movedim(1, -1).reshape(-1, 8)
    branch = (y - x).double().movedim(1, -1).reshape(-1, 8)
    design = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    # The input has three channels behind it: other directions hold rounding errors only.
    left = branch - design @ torch.linalg.lstsq(design, branch, rcond=1e-5).solution
    expected = float(left.square().mean() / y.double().square().mean())
    assert block.unexplained == pytest.approx(expected, rel=0.02)


def test_an_unknown_score() -> None:
    with pytest.raises(UnknownNameError, match="recoverability"):
        choose_blocks(network(), images(), 1, "recover")
