"""The training loop: hooks, accumulation, averages, checks and schedules, against plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from eightfold.compress.train.checkpoint import Checkpoint
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch, Hook, Run
from eightfold.compress.train.log import Log, TensorBoardLog, log_beside, plot_log, read_log
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import DivergedError, LoopOptions
from eightfold.compress.train.schedule import LearningRate
from eightfold.errors import MissingExtraError, ModelError, UsageError

CPU = Devices("cpu", "off")
FLAT = LearningRate("constant", warm_up=0.0)


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def batch_at(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(4, 3, generator=generator)
    return Batch((x,), x.sum(1, keepdim=True))


def sgd(model: nn.Module, rate: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=rate)


def test_accumulated_steps_are_those_of_plain_torch() -> None:
    ours, plain = line(), line()
    fit(ours, batch_at, sgd(ours), LoopOptions(steps=3, rate=FLAT, accumulate=2), loss=mse_loss, devices=CPU)
    optimizer = sgd(plain)
    for step in range(3):
        optimizer.zero_grad()
        for part in (2 * step, 2 * step + 1):
            batch = batch_at(part)
            (mse_loss(plain(*batch.inputs), batch.target) / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(ours.weight, plain.weight)


class Recording(Hook):
    """A penalty on the weight, and a mask that keeps its first entry at zero."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, run: Run) -> None:
        self.calls.append("start")

    def terms(self, run: Run, batch: Batch, outputs: object) -> Mapping[str, Tensor]:
        self.calls.append("terms")
        return {"penalty": 0.5 * run.model.get_parameter("weight").square().sum()}

    def after_backward(self, run: Run) -> None:
        self.calls.append("backward")

    def after_step(self, run: Run) -> None:
        self.calls.append("step")
        run.model.get_parameter("weight").data[0, 0] = 0


def test_hooks_add_losses_and_correct_weights() -> None:
    model, hook, log = line(), Recording(), Log()
    fit(model, batch_at, sgd(model), LoopOptions(steps=2), loss=mse_loss, hooks=[hook], log=log, devices=CPU)
    assert hook.calls == ["start", *["terms", "backward", "step"] * 2]
    assert model.weight[0, 0] == 0
    assert {"loss", "penalty"} <= set(log.rows[0])


def test_the_best_checked_state_is_the_result() -> None:
    model = line()
    wanted = model.weight.detach().clone()
    options = LoopOptions(steps=6, rate=FLAT, checks=6)
    done = fit(model, batch_at, sgd(model, 5.0), options, loss=mse_loss, check=closeness(wanted), devices=CPU)
    torch.testing.assert_close(model.weight, wanted)  # a rate that destroys: nothing beats the start
    assert (done.best, done.best_step) == (0.0, 0)


def closeness(wanted: Tensor):  # type: ignore[no-untyped-def]  # of a local function
    return lambda model: -float((model.weight - wanted).abs().sum())


def test_patience_ends_a_run() -> None:
    model = line()
    options = LoopOptions(steps=100, checks=100, patience=3)
    done = fit(model, batch_at, sgd(model), options, loss=mse_loss, check=lambda model: 0.0, devices=CPU)
    assert (done.stopped, done.steps) == ("early", 3)


def test_the_average_is_that_of_the_definition() -> None:
    model, twin = line(), line()
    average = twin.weight.detach().clone()
    for step in range(3):
        optimizer = sgd(twin)
        batch = batch_at(step)
        mse_loss(twin(*batch.inputs), batch.target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * twin.weight.detach()
    fit(model, batch_at, sgd(model), LoopOptions(steps=3, rate=FLAT, average=0.5), loss=mse_loss, devices=CPU)
    torch.testing.assert_close(model.weight.detach(), average)


def test_a_diverging_loss_names_step_and_batch() -> None:
    def explode(outputs: Tensor, target: Tensor) -> Tensor:
        return outputs.sum() * torch.inf

    model = line()
    with pytest.raises(DivergedError, match=r"became .*inf at step 1, batch 1") as caught:
        fit(model, batch_at, sgd(model), LoopOptions(steps=3), loss=explode, devices=CPU)
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(model.weight, line().weight)


def test_a_budget_is_steps_or_seconds() -> None:
    with pytest.raises(UsageError, match="both given or both missing"):
        fit(line(), batch_at, sgd(line()), LoopOptions(), loss=mse_loss, devices=CPU)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    Checkpoint({"model": {"weight": torch.zeros(2, 2)}}, {}).save(file)
    model = line()
    with pytest.raises(ModelError, match="is of another network: bias is None there"):
        fit(model, batch_at, sgd(model), LoopOptions(steps=1), loss=mse_loss, checkpoint=file, devices=CPU)
    file.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="is no checkpoint"):
        fit(model, batch_at, sgd(model), LoopOptions(steps=1), loss=mse_loss, checkpoint=file, devices=CPU)


@pytest.mark.parametrize(
    ("rate", "progress", "factor"),
    [
        (LearningRate("cosine", warm_up=0.2), 0.2, 1.0),
        (LearningRate("cosine", warm_up=0.2), 0.6, 0.5),
        (LearningRate("cosine", floor=0.1), 1.0, 0.1),
        (LearningRate("onecycle", warm_up=0.2), 0.0, 0.1),
        (LearningRate("step", warm_up=0.0), 0.7, 0.1),
        (LearningRate("step", warm_up=0.0), 0.9, 0.01),
        (LearningRate("constant"), 0.5, 1.0),
    ],
)
def test_schedules(rate: LearningRate, progress: float, factor: float) -> None:
    assert rate.factor(progress) == pytest.approx(factor)


def test_a_log_is_read_back_and_drawn(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", [{"step": 1, "loss": 0.5}, {"step": 1, "check": 0.25}, {"step": 2, "loss": 0.4}])
    log.write()
    assert read_log(tmp_path / "log.csv") == log.rows
    again = Log(tmp_path / "log.csv")
    again.resume(1)
    assert again.rows == log.rows[:2]
    assert plot_log(log.rows, tmp_path / "log.svg").read_text().startswith("<?xml")


def test_a_log_for_tensorboard_has_every_step_once(tmp_path: Path) -> None:
    """TensorBoard's own reader is the oracle; the second run goes on behind step 3 of the first."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'eightfold[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start in (0, 3):
        log = log_beside(tmp_path / "net", "tensorboard")
        assert isinstance(log, TensorBoardLog)
        if start:
            log.resume(start)
        for step in range(start + 1, start + 6):
            log.add({"step": step, "seconds": 0.1 * step, "loss": 1 / step})
            log.write()
    found = EventAccumulator(str(tmp_path / "net.tensorboard"))
    found.Reload()
    assert found.Tags()["scalars"] == ["loss"]
    points = {event.step: event.value for event in found.Scalars("loss")}
    assert points == pytest.approx({step: 1 / step for step in range(1, 9)})
    assert [row["step"] for row in read_log(tmp_path / "net.log.csv")] == list(range(1, 9))


def test_tensorboard_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.extras.installed", lambda module: module != "tensorboard")
    with pytest.raises(MissingExtraError, match=r"pip install 'eightfold\[tensorboard\]'"):
        log_beside(tmp_path / "net", "tensorboard")
    with pytest.raises(UsageError, match="log 'wandb'"):
        log_beside(tmp_path / "net", "wandb")
