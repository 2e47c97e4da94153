"""Iterative pruning: widths from the original, merged steps, stops, resume; and batch norms estimated anew."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import eightfold as ef
from eightfold.compress.surgery.artifacts import PLAN
from eightfold.compress.trace.groups import Group
from eightfold.compress.train.iterate.iterate import Iterated, iterate
from eightfold.compress.train.iterate.options import IterateOptions, StepTraining
from eightfold.compress.train.iterate.plot import plot_steps
from eightfold.compress.train.iterate.steps import width_steps
from eightfold.errors import ImageError, ModelError, UsageError

IMAGE = torch.rand(2, 3, 8, 8)


class Small(nn.Module):
    """A concatenation, so that one group begins behind another, and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(40)
        self.mix, self.inner, self.back = nn.Conv2d(40, 32, 1), nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(48, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        x = self.mix(x)
        x = torch.relu(x + self.back(torch.relu(self.inner(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def test_widths_come_from_the_original_and_equal_steps_are_merged() -> None:
    groups = [Group("a", 64, ()), Group("b", 16, ()), Group("c", 512, ())]
    steps = width_steps(groups, steps=16, keep_ratio=0.5)
    for step in steps:
        for group in groups:
            exact = group.width * 0.5 ** (step.number / 16)
            assert abs(step.counts[group.id] - exact) <= 4
            assert step.counts[group.id] % 8 == 0
    assert steps[-1].counts == {"a": 32, "b": 8, "c": 256}
    assert all(a.counts != b.counts for a, b in itertools.pairwise(steps))
    alone = width_steps(groups[:2], steps=16, keep_ratio=0.5)
    assert len(alone) < 8  # 16 to 8 and 64 to 32 change five times at most
    with pytest.raises(UsageError, match="changes no width at a multiple of 8"):
        width_steps([Group("b", 16, ())], steps=4, keep_ratio=0.9)
    with pytest.raises(UsageError, match="0 steps"):
        width_steps(groups, steps=0, keep_ratio=0.5)


def nudge(model: nn.Module, training: StepTraining) -> None:
    """Training that depends on the network and the step alone."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.01 * training.step)


def size(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 10_000


OPTIONS = IterateOptions(steps=4, keep_ratio=0.5, epochs=(3, 5), rate=(0.1, 0.02), last_factor=2)


def run(folder: Path, options: IterateOptions = OPTIONS, finetune=nudge) -> Iterated:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return iterate(Small(), IMAGE, finetune, size, folder, options=options, latency=lambda model: 2 * size(model))


def test_each_step_trains_and_the_plan_is_against_the_original(tmp_path: Path) -> None:
    seen: list[StepTraining] = []

    def watch(model: nn.Module, training: StepTraining) -> None:
        seen.append(training)
        nudge(model, training)

    done = run(tmp_path / "run", finetune=watch)
    assert [each.epochs for each in seen] == [3, *[5] * (len(seen) - 2), 10]
    assert [each.rate for each in seen][:2] == [0.1, 0.02]
    assert seen[-1].warm_up_epochs == 3
    assert len(done.rows) == len(seen) + 1
    assert done.rows[0].keep_ratio == 1
    torch.manual_seed(0)
    fresh = Small()
    ef.apply_plan(fresh, done.plan)
    assert [p.shape for p in fresh.parameters()] == [p.shape for p in done.model.parameters()]
    assert {name: len(kept) for name, kept in done.plan.kept.items()} == {
        "left.weight": 8, "right.weight": 16, "mix.weight": 16, "inner.weight": 24,
    }  # fmt: skip
    done.model(IMAGE)
    assert "latency" in done.describe()
    assert plot_steps(done.rows, tmp_path / "steps.svg").read_text().startswith("<?xml")


def test_a_killed_run_goes_on_behind_its_last_step(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")

    def killed(model: nn.Module, training: StepTraining) -> None:
        if training.step == 2:
            raise KeyboardInterrupt
        nudge(model, training)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", finetune=killed)
    again = run(tmp_path / "parts")
    assert again.rows == whole.rows
    for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UsageError, match=r"iterate.json has the steps \[0, "):
        run(tmp_path / "whole", IterateOptions(steps=2, keep_ratio=0.4))
    (tmp_path / "whole" / "iterate.json").write_text("[{}]")
    with pytest.raises(ModelError, match="is damaged"):
        run(tmp_path / "whole")


@pytest.mark.parametrize("relative", [False, True])
def test_the_last_network_within_the_bound_is_returned(relative: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = size(Small())
    bound = 0.45 if relative else 0.45 * original
    options = IterateOptions(steps=8, keep_ratio=0.3, max_drop=bound, relative=relative)
    done = run(tmp_path / "run", options)
    assert done.stopped
    assert [row.within for row in done.rows] == [True] * (len(done.rows) - 1) + [False]
    assert size(done.model) >= 0.55 * original > done.rows[-1].recovered
    assert size(done.model) == done.rows[-2].recovered
    assert f"the network of step {done.rows[-2].step} is kept" in done.describe()
    assert (tmp_path / "run" / f"step-{done.rows[-1].step}" / PLAN).is_file()
    assert run(tmp_path / "run", options).rows == done.rows


def test_what_iterating_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'taylor' in iterative pruning"):
        IterateOptions(score="taylor")
    run(tmp_path / "run", IterateOptions(steps=1, keep_ratio=0.5))
    other = nn.Sequential(nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 32, 1), nn.Conv2d(32, 2, 1))
    with pytest.raises(ModelError, match="is of another network"):
        iterate(other, IMAGE, nudge, size, tmp_path / "run", options=IterateOptions(steps=1, keep_ratio=0.5))


def test_norms_get_the_statistics_of_all_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(8, 4, 1)).train()
    kept = copy.deepcopy(model[0].state_dict())
    images = torch.rand(24, 3, 8, 8)
    assert ef.reestimate_norms(model, [images[:12], images[12:]]) == 1
    with torch.no_grad():
        halves = [model[0](part) for part in (images[:12], images[12:])]
    mean = torch.stack([half.mean((0, 2, 3)) for half in halves]).mean(0)
    variance = torch.stack([half.var((0, 2, 3)) for half in halves]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)
    assert model[1].momentum == 0.1
    assert model.training
    assert all(torch.equal(kept[name], value) for name, value in model[0].state_dict().items())
    with pytest.raises(ImageError, match="no images to estimate"):
        ef.reestimate_norms(model, ())
