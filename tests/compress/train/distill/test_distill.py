"""Distillation against slow loops over the papers' formulas, and students whose widths and depths differ."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import eightfold as ef
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.distill.distiller import Distiller, DistillOptions
from eightfold.compress.train.distill.features import feature_pairs, map_shapes
from eightfold.compress.train.distill.hook import Distill
from eightfold.compress.train.distill.losses import LOSSES, register_distillation
from eightfold.compress.train.distill.masked import MaskedGeneration
from eightfold.compress.train.hooks import Batch, Hook, Run
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions
from eightfold.errors import ModelError, UnknownNameError, UsageError

ALL = {"logits": 1.0, "cwd": 1.0, "attention": 1.0, "features": 1.0, "mgd": 1.0}
IMAGE = torch.rand(1, 3, 16, 16)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def divergence(wanted: list[float], seen: list[float], temperature: float) -> float:
    p, q = ([*softmax([value / temperature for value in row])] for row in (wanted, seen))
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_logits_are_those_of_a_loop_over_images() -> None:
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    slow = sum(divergence(t, s, 3.0) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)) / 3
    assert float(ef.distillation_loss(student, teacher, temperature=3.0)) == pytest.approx(slow, rel=1e-5)


def test_channel_wise_distillation_is_that_of_a_loop_over_channels() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    slow = 0.0
    for s, t in zip(student.reshape(6, 20).tolist(), teacher.reshape(6, 20).tolist(), strict=True):
        slow += divergence(t, s, 4.0) / 6
    assert float(ef.distillation_loss(student, teacher, method="cwd")) == pytest.approx(slow, rel=1e-5)


def test_attention_is_that_of_a_loop_over_positions() -> None:
    student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 7, 2, 2)  # of other widths
    slow = 0.0
    for image in range(2):
        maps = []
        for features in (student[image], teacher[image]):
            powers = [
                float(sum(c[y][x] ** 2 for c in features.tolist()) / len(features)) for y in (0, 1) for x in (0, 1)
            ]
            length = math.sqrt(sum(p * p for p in powers))
            maps.append([p / length for p in powers])
        slow += sum((a - b) ** 2 for a, b in zip(*maps, strict=True)) / 8
    assert float(ef.distillation_loss(student, teacher, method="attention")) == pytest.approx(slow, rel=1e-5)


def test_features_are_compared_in_units_of_their_variance() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4) * torch.tensor([1.0, 10, 100])[:, None, None]
    variance = [float(teacher[:, c].double().var(unbiased=False)) for c in range(3)]
    floor = 0.01 * sum(variance) / 3
    slow = sum(
        float((student[:, c] - teacher[:, c]).double().square().mean()) / (variance[c] + floor) / 3 for c in range(3)
    )
    assert float(ef.distillation_loss(student, teacher, method="features")) == pytest.approx(slow, rel=1e-5)


def test_masked_generation_hides_positions_of_all_channels() -> None:
    module, x = MaskedGeneration(4), torch.rand(2, 4, 8, 8)
    seen: list[Tensor] = []
    module.generate.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(x, x)
    shown = seen[0] != 0
    assert (shown.all(1) | ~shown.any(1)).all()
    assert 0.15 < float(shown.float().mean()) < 0.55


@pytest.mark.parametrize("method", sorted(LOSSES))
def test_equal_answers_cost_nothing_and_the_teacher_gets_no_gradient(method: str) -> None:
    student, teacher = (torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(2))
    ef.distillation_loss(student, teacher, method=method).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert float(student.grad.abs().sum()) > 0
    assert ef.distillation_loss(teacher, teacher, method=method).item() == pytest.approx(0, abs=1e-6)


class Small(nn.Module):
    def __init__(self, width: int, blocks: int, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        layers = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(blocks)]
        self.body = nn.Sequential(nn.MaxPool2d(2), *layers)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return out


def test_pairs_are_the_last_shared_modules_of_each_map_size() -> None:
    student, teacher = map_shapes(Small(8, 1), (IMAGE,)), map_shapes(Small(16, 3), (IMAGE,))
    assert feature_pairs(student, teacher) == {"stem": "stem", "body": "body"}
    with pytest.raises(ModelError, match="share no module"):
        feature_pairs(student, {"other": (1, 8, 16, 16)})


def batch_at(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return Batch((torch.rand(8, 3, 16, 16, generator=generator),), torch.randint(4, (8,), generator=generator))


def test_a_narrower_shallower_student_learns_by_all_losses() -> None:
    teacher, student = Small(16, 3), Small(8, 1)
    kept = copy.deepcopy(teacher.state_dict())
    hook = Distill(Distiller(student, teacher, IMAGE, DistillOptions(ALL)))
    before = [each.detach().clone() for each in hook.distiller.parameters()]
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    done = fit(
        student,
        batch_at,
        optimizer,
        LoopOptions(steps=30),
        loss=cross_entropy,
        hooks=[hook],
        devices=Devices("cpu", "off"),
    )
    first, last = done.rows[0], done.rows[-1]
    assert all(last[name] < first[name] for name in ("logits", "cwd", "features", "mgd"))
    assert all(torch.equal(kept[name], value) for name, value in teacher.state_dict().items())
    assert teacher.training
    assert len(before) == 12  # two adapters of two tensors, two generators of four
    assert not any(torch.equal(a, b) for a, b in zip(before, hook.distiller.parameters(), strict=True))


def test_a_resumed_distillation_is_that_of_one_run(tmp_path: Path) -> None:
    torch.manual_seed(1)
    teacher, start = Small(16, 2), Small(8, 2)
    adapters = Distiller(start, teacher, IMAGE, DistillOptions({"cwd": 1.0})).state_dict()
    results = []
    for split in (False, True):
        path = tmp_path / f"{split}.safetensors"
        student = copy.deepcopy(start)
        for steps in (3, 6) if split else (6,):
            if split and steps == 6:
                student = copy.deepcopy(start)
            distiller = Distiller(student, teacher, IMAGE, DistillOptions({"cwd": 1.0}))
            distiller.load_state_dict(adapters)
            options = LoopOptions(steps=6, save_every_s=0.0)
            optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
            hooks = [Distill(distiller), Stop(steps)]
            fit(student, batch_at, optimizer, options, hooks=hooks, checkpoint=path, devices=Devices("cpu", "off"))
        results.append(student)
    for a, b in zip(results[0].parameters(), results[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


class Stop(Hook):
    """Interrupts a run as Ctrl-C does, before the step after `steps`."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    @contextlib.contextmanager
    def around_forward(self, run: Run, batch: Batch) -> Iterator[None]:
        if run.step >= self._steps:
            raise KeyboardInterrupt
        yield


def test_a_teacher_of_another_task_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"student gives \(1, 4\) and the teacher \(1, 7\)") as caught:
        Distiller(Small(8, 1), Small(8, 1, classes=7), IMAGE, DistillOptions({"logits": 1.0}))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="the student gives"):
        ef.distillation_loss(torch.rand(2, 3), [torch.rand(2, 3), torch.rand(2, 3)])


def test_options_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'logits'"):
        DistillOptions({"logit": 1.0})
    with pytest.raises(UsageError, match="weight of 0"):
        DistillOptions({"logits": 0.0})
    with pytest.raises(UsageError, match="without a loss"):
        DistillOptions({})
    with pytest.raises(UnknownNameError, match="module that gives maps"):
        Distiller(Small(8, 1), Small(8, 1), IMAGE, DistillOptions({"cwd": 1.0}, {"boby": "body"}))
    with pytest.raises(ModelError, match="the pair stem=body has maps"):
        Distiller(Small(8, 1), Small(8, 1), IMAGE, DistillOptions({"cwd": 1.0}, {"stem": "body"}))
    with pytest.raises(UsageError, match="'cwd' exists"):
        register_distillation("cwd", LOSSES["cwd"])
