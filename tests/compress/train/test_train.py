"""The training loop: learns, is deterministic, and ends the same when it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from eightfold.compress.train.train import ONE_CYCLE, Batch, LearningRateSchedule, train
from eightfold.errors import ModelError

SCHEDULE = LearningRateSchedule(epochs=4, steps_per_epoch=8, learning_rate=0.1, weight_decay=1e-4, seed=3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


def batches(epoch: int) -> Iterator[Batch]:
    """Two classes that a line separates."""
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(SCHEDULE.steps_per_epoch):
        points = torch.randn(32, 2, generator=generator)
        yield points, (points.sum(1) > 0).long()


def interrupted(epoch: int) -> Iterator[Batch]:
    if epoch == 2:
        raise KeyboardInterrupt
    yield from batches(epoch)


def test_it_learns(tmp_path: Path) -> None:
    model = network()
    loss = train(model, batches, cross_entropy, SCHEDULE, checkpoint=tmp_path / "c.safetensors")
    points, labels = next(batches(99))
    assert loss < 0.35
    assert (model(points).argmax(1) == labels).float().mean() > 0.9
    assert not model.training


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, parts = network(), network()
    train(whole, batches, cross_entropy, SCHEDULE, checkpoint=tmp_path / "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(parts, interrupted, cross_entropy, SCHEDULE, checkpoint=tmp_path / "parts.safetensors")
    parts = network()  # a new process starts from the initial weights
    train(parts, batches, cross_entropy, SCHEDULE, checkpoint=tmp_path / "parts.safetensors")
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_diverging_run_says_so(tmp_path: Path) -> None:
    def infinite(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.sum() * torch.inf

    with pytest.raises(ModelError, match=r"the loss became .*; lower the learning rate"):
        train(network(), batches, infinite, SCHEDULE, checkpoint=tmp_path / "c.safetensors")


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    rates = [SCHEDULE.learning_rate * ONE_CYCLE.factor(step / 32) for step in range(33)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) <= 0.1
    assert rates[-1] == pytest.approx(0, abs=1e-12)
