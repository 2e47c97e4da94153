"""Sparse training against penalties written as loss terms, which autograd differentiates."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import eightfold as ef
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions
from eightfold.compress.train.schedule import LearningRate
from eightfold.compress.train.sparsity.history import dead_share
from eightfold.compress.train.sparsity.hook import Sparsity
from eightfold.compress.train.sparsity.penalties import PENALTIES, GroupLasso, ScalePenalty, register_penalty
from eightfold.compress.train.sparsity.proximal import UPDATES, Update
from eightfold.compress.train.sparsity.scales import batch_norm_scales, penalized_scales
from eightfold.compress.train.sparsity.strength import Strength
from eightfold.compress.train.sparsity.suggest import suggested_ratio, suggested_strength
from eightfold.errors import ModelError, UsageError

S = 0.01


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    nn.init.normal_(model[1].weight)  # type: ignore[arg-type]  # a tensor
    return model


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


def residual_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), Residual(), nn.Conv2d(16, 4, 1))


def batch_at(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return Batch((torch.randn(4, 3, 8, 8, generator=generator),), torch.randn(4, 4, 4, 4, generator=generator))


def reference_steps(model: nn.Module, penalty: Callable[[], Tensor], *, steps: int, accumulate: int) -> None:
    """Plain SGD on the mean loss of the accumulated batches plus the penalty, once."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        losses = []
        for part in range(accumulate):
            batch = batch_at(step * accumulate + part)
            losses.append(mse_loss(model(*batch.inputs), batch.target))
        (torch.stack(losses).mean() + penalty()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def l1_of(model: nn.Sequential) -> Callable[[], Tensor]:
    scale = model[1].weight
    assert isinstance(scale, Tensor)
    return lambda: S * scale.abs().sum()


def assert_same(ours: nn.Module, reference: nn.Module) -> None:
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("update", UPDATES)
def test_the_hook_equals_a_loss_term_under_accumulation(update: Update) -> None:
    """A proximal step without momentum, in which no scale changes its sign, is one along the subgradient."""
    ours = two_layers()
    reference = copy.deepcopy(ours)
    hook = Sparsity(ScalePenalty(batch_norm_scales(ours), Strength(S)), update)
    options = LoopOptions(steps=3, accumulate=2, rate=LearningRate("constant", warm_up=0))
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.05)
    fit(ours, batch_at, optimizer, options, loss=mse_loss, hooks=[hook], devices=Devices("cpu", "off"))
    reference_steps(reference, l1_of(reference), steps=3, accumulate=2)
    assert_same(ours, reference)


@pytest.mark.parametrize("kind", ["plain", "scaler", "fused"])
def test_a_foreign_loop_feels_the_penalty_once_and_unscaled(kind: str) -> None:
    ours = two_layers()
    reference = copy.deepcopy(ours)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.05, fused=kind == "fused")
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=kind != "plain")
    with ef.sparsify(ours, s=S, update="subgradient") as sparse:
        for step in range(3):
            optimizer.zero_grad()
            for part in range(2):
                batch = batch_at(2 * step + part)
                scaler.scale(mse_loss(ours(*batch.inputs), batch.target) / 2).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
    reference_steps(reference, l1_of(reference), steps=3, accumulate=2)
    assert_same(ours, reference)
    assert sparse.steps == 3


def test_the_group_lasso_is_the_gradient_of_norms_of_coupled_weights() -> None:
    model = residual_network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    penalty = PENALTIES["group-lasso"](model, Strength(S), "all", torch.rand(1, 3, 8, 8))
    assert isinstance(penalty, GroupLasso)
    penalty.add_gradients(0.0)
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    w = dict(model.named_parameters())
    total = torch.zeros(())
    # By hand: the stream is made by 0 and 3.conv2, read by 3.conv1 and 4; the inner width by 3.conv1, read by 3.conv2.
    stream = [(w["0.weight"], 0), (w["1.weight"], 0), (w["3.conv2.weight"], 0), (w["3.norm2.weight"], 0)]
    stream += [(w["3.conv1.weight"], 1), (w["4.weight"], 1)]
    inner = [(w["3.conv1.weight"], 0), (w["3.norm1.weight"], 0), (w["3.conv2.weight"], 1)]
    for members in (stream, inner):
        for channel in range(16):
            own = torch.cat([tensor.select(dim, channel).flatten() for tensor, dim in members])
            total = total + S * len(own) ** 0.5 * own.norm()
    total.backward()  # type: ignore[no-untyped-call]
    for name, each in w.items():
        if not name.endswith("bias"):
            torch.testing.assert_close(found[name], each.grad, msg=name)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"lr": 0.02}),
        (torch.optim.SGD, {"lr": 0.002, "momentum": 0.9, "nesterov": True}),
        (torch.optim.Adam, {"lr": 0.01}),
    ],
)
def test_proximal_steps_end_at_the_soft_threshold(kind: Any, options: dict[str, Any]) -> None:
    """0.5 (x - a)^2 + s |x| is least at sign(a) max(|a| - s, 0), whatever the optimizer."""
    wanted = torch.tensor([1.5, -0.8, 0.1, -0.05, 0.0])
    scale = nn.Parameter(torch.tensor([1.0, 1.0, 1.0, -1.0, 0.5]))
    penalty, optimizer = ScalePenalty({"scale": scale}, Strength(0.2)), kind([scale], **options)
    for _ in range(2500):
        optimizer.zero_grad()
        (0.5 * (scale - wanted).square().sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        penalty.shrink(0.5, optimizer)
    torch.testing.assert_close(scale.detach()[:2], torch.tensor([1.3, -0.6]), atol=1e-3, rtol=0)
    assert scale[2:].tolist() == [0.0, 0.0, 0.0]


def test_coupled_scales_end_at_the_block_soft_threshold_and_die_together() -> None:
    """0.5 |x - a|^2 + s sqrt(n) |x| is least at max(1 - s sqrt(n) / |a|, 0) a, channel by channel."""
    model = residual_network()
    penalty = PENALTIES["coupled-scales"](model, Strength(0.2), "all", torch.rand(1, 3, 8, 8))
    scales = batch_norm_scales(model)
    assert {id(each) for each in penalty.parameters()} == {id(each) for each in scales.values()}
    torch.manual_seed(2)
    wanted = {name: 0.4 * torch.randn(16) for name in scales}
    optimizer = torch.optim.SGD(scales.values(), lr=0.01, momentum=0.9)
    for _ in range(600):
        optimizer.zero_grad()
        sum(0.5 * (scales[name] - wanted[name]).square().sum() for name in scales).backward()  # type: ignore[union-attr]
        optimizer.step()
        penalty.shrink(0.5, optimizer)
    for names in (["1.weight", "3.norm2.weight"], ["3.norm1.weight"]):
        norm = torch.stack([wanted[name] for name in names]).norm(dim=0)
        factor = (1 - 0.2 * len(names) ** 0.5 / norm).clamp(min=0)
        assert 0 < int((factor == 0).sum()) < 16
        for name in names:
            torch.testing.assert_close(scales[name].detach(), factor * wanted[name], atol=2e-3, rtol=0)
            assert torch.equal(scales[name] == 0, factor == 0)


def test_what_sparse_training_killed_goes_from_a_residual_stream_for_nothing() -> None:
    model = residual_network()
    image = torch.rand(1, 3, 8, 8)
    for scale in batch_norm_scales(model).values():
        nn.init.uniform_(scale, 0.2, 2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    options: dict[str, Any] = {"penalty": "coupled-scales", "schedule": "release", "example_inputs": image}
    with ef.sparsify(model, s=0.06, steps=60, **options):
        for step in range(60):
            batch = batch_at(step)
            optimizer.zero_grad()
            mse_loss(model(batch.inputs[0][..., :6, :6]), batch.target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    dead = model.get_parameter("1.weight") == 0
    assert torch.equal(dead, model.get_parameter("3.norm2.weight") == 0)
    assert 0 < int(dead.sum()) < 16
    images = batch_at(0).inputs[0]
    before = model.eval()(images)
    left = {"0.weight": 1 - float(dead.float().mean())}
    ef.prune(model, image, rule="global", score="bn_scale", keep_ratio=1.0, keep=left, multiple=1)
    assert model.get_parameter("0.weight").shape[0] == int((~dead).sum())
    torch.testing.assert_close(model(images), before)


def test_channels_that_are_dead_at_the_release_give_nothing_from_then_on() -> None:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with ef.sparsify(model, s=0.06, schedule="release", steps=60):
        train_some(model, optimizer, 60)
    scale, shift = model.get_parameter("1.weight"), model.get_parameter("1.bias")
    dead = scale == 0
    assert 0 < int(dead.sum()) < 8
    assert not shift[dead].any()
    assert shift[~dead].all()
    images = batch_at(0).inputs[0]
    before = model.eval()(images)
    with torch.no_grad():
        model.get_parameter("3.weight")[:, dead] = 1e6  # nothing arrives there
    assert torch.equal(model(images), before)


def test_a_layer_keeps_a_channel_and_a_group_has_no_proximal_step() -> None:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ScalePenalty(batch_norm_scales(model), Strength(1e6)).shrink(0.0, optimizer)
    assert int((model.get_parameter("1.weight") != 0).sum()) == 1
    with pytest.raises(UsageError, match="GroupLasso, which has none; allowed: subgradient"):
        Sparsity(PENALTIES["group-lasso"](residual_network(), Strength(S), "all", torch.rand(1, 3, 8, 8)), "proximal")


def test_layer_sets_are_those_of_the_rules() -> None:
    model, image = residual_network(), torch.rand(1, 3, 8, 8)
    assert list(penalized_scales(model)) == ["1.weight", "3.norm1.weight", "3.norm2.weight"]
    assert list(penalized_scales(model, "normal", image)) == ["3.norm1.weight"]
    assert set(penalized_scales(model, "shortcut", image)) == set(penalized_scales(model))
    assert list(penalized_scales(model, "layer", image)) == ["3.norm2.weight"]
    with pytest.raises(UsageError, match="'normal' without example inputs"):
        penalized_scales(model, "normal")
    with pytest.raises(UsageError, match="layer set"):
        penalized_scales(model, "some")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ModelError, match="no batch norm scales in the layer set 'all'"):
        penalized_scales(nn.Linear(2, 2))


def test_the_strength_follows_its_schedule() -> None:
    sizes = torch.arange(20.0)
    assert Strength(1.0, "constant").of(sizes, 0.9).tolist() == [1.0] * 20
    assert Strength(1.0, "global").of(sizes, 0.5).tolist() == pytest.approx([0.01] * 20)
    assert Strength(1.0, "local").of(sizes, 0.49).tolist() == [1.0] * 20
    assert Strength(1.0, "local").of(sizes, 0.5).tolist() == pytest.approx([1.0] * 17 + [0.01] * 3)
    assert Strength(1.0, "dynamic").of(sizes, 0.4).tolist() == pytest.approx([1.0] * 13 + [0.01] * 7)
    release = Strength(2.0, "release")
    assert [float(release.of(sizes, at)[3]) for at in (0.0, 0.1, 0.2, 0.59, 0.6, 1.0)] == [0, 1, 2, 2, 0, 0]
    assert [release.released(at) for at in (0.59, 0.6)] == [False, True]
    with pytest.raises(UsageError, match="penalty of 0"):
        Strength(0.0)
    with pytest.raises(UsageError, match="schedule"):
        Strength(1.0, "never")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(UsageError, match="'local' without steps"), ef.sparsify(two_layers(), schedule="local"):
        pass


def train_some(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        batch = batch_at(step)
        optimizer.zero_grad()
        mse_loss(model(*batch.inputs), batch.target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_a_strength_that_kills_every_channel_is_one_line() -> None:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with pytest.raises(ModelError, match="took all 8 channels below 2%") as caught, ef.sparsify(model, s=40, steps=100):
        train_some(model, optimizer, 100)
    assert "lower s tenfold" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_optimizer_of_another_model_is_refused() -> None:
    model, other = two_layers(), two_layers()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.01)
    with pytest.raises(UsageError, match="holds none of the penalized"), ef.sparsify(model):
        train_some(other, optimizer, 1)
    hook = Sparsity(ScalePenalty(batch_norm_scales(model), Strength(S)))
    with pytest.raises(UsageError, match="holds none of the penalized"):
        fit(other, batch_at, optimizer, LoopOptions(steps=1), loss=mse_loss, hooks=[hook], devices=Devices("cpu"))
    own = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(UsageError, match="with a closure"), ef.sparsify(model):
        own.step(lambda: 0.0)


def test_histograms_show_scales_that_die(tmp_path: Path) -> None:
    model = two_layers()
    scale = batch_norm_scales(model)["1.weight"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with ef.sparsify(model, s=1.0, steps=40) as sparse:
        train_some(model, optimizer, 40)
    assert sparse.history.dead[-1] == dead_share({"": scale.detach().abs()})
    assert all(sum(counts) == 8 for counts in sparse.history.counts)
    sparse.history.save(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text())["steps"][-1] == 40
    assert sparse.history.plot(tmp_path / "history.svg").read_text().startswith("<?xml")
    assert "channels below 1%" in sparse.history.describe()


def test_the_suggested_strength_takes_a_free_scale_to_zero_after_half_of_the_run() -> None:
    model = two_layers()
    scale = batch_norm_scales(model)["1.weight"]
    nn.init.constant_(scale, 0.8)
    strength = suggested_strength(model, rate=0.05, steps=400)
    free = nn.Parameter(torch.full((1,), 0.8))
    optimizer = torch.optim.SGD([free], lr=0.05, momentum=0.9)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 * LearningRate().factor(step / 400)
        free.grad = torch.full((1,), strength)
        optimizer.step()
    assert abs(float(free.detach())) < 0.05  # of 0.8: momentum lags some steps behind


def test_the_suggested_ratio_counts_what_one_threshold_removes() -> None:
    model = two_layers()
    scale = batch_norm_scales(model)["1.weight"]
    with torch.no_grad():
        scale.copy_(torch.tensor([1e-4, 1e-4, -1e-5, 0.0, 0.5, 0.6, -0.7, 1.0]))
    found = suggested_ratio(model)
    assert (found.removable, found.limit) == (0.5, 0.875)
    assert found.describe().startswith("suggested: --keep 0.50")


def test_a_penalty_of_ones_own_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.compress.train.sparsity.penalties.PENALTIES", dict(PENALTIES))

    def mine(model: nn.Module, strength: Strength, layers: Any, example_inputs: Any) -> ScalePenalty:
        return ScalePenalty(batch_norm_scales(model), strength)

    register_penalty("mine", mine)
    with pytest.raises(UsageError, match="'mine' exists"):
        register_penalty("mine", mine)
    with pytest.raises(UsageError, match="unknown penalty 'scale'"), ef.sparsify(two_layers(), penalty="scale"):
        pass
