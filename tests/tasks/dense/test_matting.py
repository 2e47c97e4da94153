"""Matting: metrics and losses against slow loops and torch's own, and a generated set on which a network learns."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eightfold.errors import UsageError
from eightfold.tasks.dense.matting_losses import MattingLoss, blurred, of_detail, of_semantic
from eightfold.tasks.dense.matting_metrics import matting_errors, mean_errors, trimap
from eightfold.zoo.generated_mattes import generate_mattes, write_mattes


def test_trimap_is_unknown_near_what_is_neither_nothing_nor_whole() -> None:
    alpha = np.zeros((40, 50), np.float32)
    alpha[10:30, 15:35] = 1
    alpha[12, 40] = 0.5
    reach = 3
    expected = np.zeros_like(alpha)
    for row in range(40):
        for column in range(50):
            near = alpha[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            expected[row, column] = 0.5 if (near > 0).any() and (near < 1).any() else near.max()
    np.testing.assert_array_equal(trimap(alpha, band=reach / 40), expected)


def test_errors_of_a_shifted_matte() -> None:
    true = np.zeros((100, 100), np.float32)
    true[:, 50:] = 1
    seen = np.clip(true + 0.1, 0, 1).astype(np.float32)
    errors = matting_errors(seen, true)
    assert errors.sad == pytest.approx(0.5)
    assert errors.mad == pytest.approx(0.05)
    assert errors.mse == pytest.approx(0.005)
    assert errors.boundary_mad == pytest.approx(0.05)  # the band is symmetric: half of it is off by 0.1
    assert mean_errors([errors, matting_errors(true, true)]).mad == pytest.approx(0.025)


def test_losses_are_those_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    image, alpha, detail, matte = (torch.rand(2, channels, 64, 64, generator=generator) for channels in (3, 1, 1, 1))
    semantic = torch.rand(2, 1, 4, 4, generator=generator)
    areas = (torch.rand(2, 1, 64, 64, generator=generator) * 3).floor() / 2
    known = areas != 0.5
    inner = torch.where(known, areas, matte)
    fused = F.l1_loss(matte, alpha) + 4 * F.l1_loss(inner, alpha)
    fused += F.l1_loss(image * matte, image * alpha) + 4 * F.l1_loss(image * inner, image * alpha)
    expected = 10 * of_semantic(semantic, alpha) + 10 * of_detail(detail, alpha, areas) + fused
    torch.testing.assert_close(MattingLoss()((semantic, detail, matte), image, alpha, areas), expected)
    torch.testing.assert_close(MattingLoss()(matte, image, alpha, areas), fused)
    torch.testing.assert_close(
        of_detail(detail, alpha, areas), F.l1_loss(torch.where(known, areas, detail), torch.where(known, areas, alpha))
    )


def test_the_blur_is_opencvs() -> None:
    x = torch.rand(1, 1, 9, 7)
    expected = cv2.GaussianBlur(x[0, 0].numpy(), (3, 3), 0.8, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(blurred(x)[0, 0].numpy(), expected, atol=1e-6)


def test_generated_mattes_composite_exactly_and_come_back(tmp_path: Path) -> None:
    one, again = (list(generate_mattes(2, 64, seed=3)) for _ in range(2))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0].image, one[1].image)
    for sample in one:
        assert 0.02 < float(sample.alpha.mean()) < 0.6
        assert ((sample.alpha > 0) & (sample.alpha < 1)).mean() > 0.01
    write_mattes(tmp_path / "mattes", train=2, test=1, side=64, seed=1)
    first = next(generate_mattes(1, 64, seed=2))
    pixels = cv2.imread(str(tmp_path / "mattes/train/images/00000.png"))
    assert pixels is not None
    np.testing.assert_array_equal(pixels[..., ::-1], first.image)
    with pytest.raises(UsageError, match="0 mattes of 64 pixels; allowed: 1 or more, of 32"):
        next(generate_mattes(0, 64))


def test_a_small_network_learns_the_generated_set() -> None:
    """Colours of the two layers differ, so that a few convolutions beat the best constant."""
    torch.manual_seed(0)
    samples = list(generate_mattes(4, 32, seed=5))
    image = torch.stack([torch.from_numpy(each.image).permute(2, 0, 1) / 127.5 - 1 for each in samples])
    alpha = torch.stack([torch.from_numpy(each.alpha)[None] for each in samples])
    areas = torch.stack([torch.from_numpy(trimap(each.alpha))[None] for each in samples])
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(),
        nn.Conv2d(8, 1, 1), nn.Sigmoid(),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    loss = MattingLoss()
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(loss(model(image), image, alpha, areas))
        optimizer.step()
    with torch.no_grad():
        error = float((model(image) - alpha).abs().mean())
    constant = float((alpha - alpha.median()).abs().mean())
    assert error < 0.7 * constant
