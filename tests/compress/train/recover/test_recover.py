"""Recovery on tiny networks made by code: it comes closer to the original, stops, resumes, and refuses bad input."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.prune import prune_module
from eightfold.compress.train.hooks import Batch, Run
from eightfold.compress.train.recover.options import RecoverOptions
from eightfold.compress.train.recover.recover import recover
from eightfold.errors import EightfoldError, ImageError, ModelError, PlanMismatchError, UsageError

QUICK = RecoverOptions(device="cpu", amp="off", batch=4, patience=100)


class Net(nn.Module):
    """Two stages with a residual connection; batch norms hold statistics of their own."""

    def __init__(self, width: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 1, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.back = nn.Conv2d(2 * width, width, 3, 1, 1)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = torch.relu(x + self.back(self.inner(x)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]  # modules are untyped


def images(count: int = 24, seed: int = 0) -> Tensor:
    """Smooth random images, so that neighbouring pixels are alike, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, (16, 16), mode="bilinear")


def pair(**options: object) -> tuple[nn.Module, nn.Module, PrunePlan]:
    torch.manual_seed(0)
    original = Net().train()
    for _ in range(4):
        original(images(16))  # statistics of the norms
    original.eval()
    pruned = copy.deepcopy(original)
    plan = prune_module(pruned, images(1), keep_ratio=0.5, **options).plan  # type: ignore[arg-type]
    return pruned, original, plan


def error_of(pruned: nn.Module, original: nn.Module) -> float:
    """Squared error on images that recovery never saw, relative to the outputs' variance."""
    fresh = images(32, seed=9)
    with torch.no_grad():
        wanted, seen = original(fresh), pruned.eval()(fresh)
    return float((wanted - seen).square().mean() / wanted.var(0).mean())


def test_it_brings_back_what_removal_lost() -> None:
    pruned, original, plan = pair()
    before = error_of(pruned, original)
    options = RecoverOptions(device="cpu", amp="off", patience=100, rate=0.03, least_squares=False)
    done = recover(pruned, original, images(64), plan=plan, steps=60, options=options)
    assert error_of(pruned, original) < 0.5 * before
    assert done.after > done.before == done.started
    assert done.steps == 60


def test_the_original_is_left_alone() -> None:
    pruned, original, plan = pair()
    before = copy.deepcopy(original.state_dict())
    recover(pruned, original, images(), plan=plan, steps=2, options=QUICK)
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
    assert all(parameter.requires_grad for parameter in original.parameters())


def test_least_squares_is_kept_only_where_it_is_closer() -> None:
    pruned, original, plan = pair()
    done = recover(pruned, original, images(), plan=plan, steps=1, options=QUICK)
    assert done.started > done.before  # a network from which channels were only removed


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, original, plan = pair()
    recover(whole, original, images(), plan=plan, steps=8, options=QUICK)
    parts, original, plan = pair()
    file = tmp_path / "state.safetensors"

    class KilledError(Exception):
        pass

    from eightfold.compress.train import loop

    true_step = loop._Loop._step

    def dying(self: loop._Loop) -> None:
        if self.run.step == 4:
            self._save()
            raise KilledError
        true_step(self)

    monkeypatch.setattr(loop._Loop, "_step", dying)
    with pytest.raises(KilledError):
        recover(parts, original, images(), plan=plan, steps=8, options=QUICK, checkpoint=file)
    monkeypatch.setattr(loop._Loop, "_step", true_step)
    parts, original, plan = pair()  # a new process starts from what was pruned
    done = recover(parts, original, images(), plan=plan, steps=8, options=QUICK, checkpoint=file)
    assert done.steps == 8
    assert not file.exists()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=0)


def test_ctrl_c_keeps_the_best_state(monkeypatch: pytest.MonkeyPatch) -> None:
    from eightfold.compress.train import loop

    true_step = loop._Loop._step

    def interrupted(self: loop._Loop) -> None:
        if self.run.step == 30:
            raise KeyboardInterrupt
        true_step(self)

    monkeypatch.setattr(loop._Loop, "_step", interrupted)
    pruned, original, plan = pair()
    before = error_of(pruned, original)
    options = RecoverOptions(device="cpu", amp="off", batch=4, rate=0.03, least_squares=False)
    done = recover(pruned, original, images(), plan=plan, steps=60, options=options)
    assert done.stopped == "interrupted"
    assert "best state so far is kept" in done.describe()
    assert error_of(pruned, original) < before


def test_a_loss_that_becomes_nan_keeps_the_best_state(monkeypatch: pytest.MonkeyPatch) -> None:
    from eightfold.compress.train.recover.mimic import Mimic

    true_terms = Mimic.terms

    def failing(self: Mimic, run: Run, batch: Batch, outputs: object) -> Mapping[str, Tensor]:
        terms = true_terms(self, run, batch, outputs)
        return {name: term * torch.nan for name, term in terms.items()} if run.step == 30 else terms

    monkeypatch.setattr(Mimic, "terms", failing)
    pruned, original, plan = pair()
    before = error_of(pruned, original)
    options = RecoverOptions(device="cpu", amp="off", batch=4, rate=0.03, least_squares=False)
    done = recover(pruned, original, images(), plan=plan, steps=60, options=options)
    assert "became nan at step 31, batch 31" in done.describe()
    assert error_of(pruned, original) < before


def test_it_stops_early_where_nothing_is_gained() -> None:
    pruned, original, plan = pair(compensation="lsq", images=images())
    options = RecoverOptions(device="cpu", amp="off", batch=4, patience=3, rate=1.0)  # a rate that destroys
    done = recover(pruned, original, images(), plan=plan, steps=200, options=options)
    assert done.stopped == "early"
    assert done.steps < 200
    assert done.after >= done.started


def test_the_log_has_the_feature_error_and_the_agreement(tmp_path: Path) -> None:
    pruned, original, plan = pair()
    recover(pruned, original, images(), plan=plan, steps=5, options=QUICK, log=tmp_path / "log.csv")
    head, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert set(head.split(",")) == {"step", "seconds", "rate", "features", "outputs", "check"}
    assert len(rows) >= 5


def test_several_inputs_as_batches() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 16, 3)
            self.join = nn.Conv2d(16, 4, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.join(torch.relu(self.left(a) + self.right(b)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    original = Two().eval()
    pruned = copy.deepcopy(original)
    batches = [(images(4, seed), images(4, seed + 50)) for seed in range(8)]
    plan = prune_module(pruned, batches[0], keep_ratio=0.5).plan
    done = recover(pruned, original, batches, plan=plan, steps=4, options=QUICK)
    assert done.held_out == 2
    assert done.after >= done.started >= done.before


def test_pictures_in_files(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for number in range(8):
        coarse = rng.integers(0, 255, (5, 6, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.resize(coarse, (60, 50)))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pruned, original, plan = pair()
    preprocess = Preprocess(height=16, width=16)
    done = recover(pruned, original, tmp_path, plan=plan, steps=2, preprocess=preprocess, options=QUICK)
    assert done.held_out == 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The network as an ONNX file."""
    pytest.importorskip("onnxruntime")
    from eightfold.export.torch.onnx_export import export_onnx

    torch.manual_seed(0)
    return export_onnx(Net().eval(), tmp_path / "net.onnx", batch=4, image_size=16)


def answer_of(file: Path, batch: Tensor) -> Tensor:
    """By onnxruntime."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(file))
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0])


def test_an_onnx_file(file: Path, tmp_path: Path) -> None:
    from eightfold.compress.onnx.graph_file import onnx_module, write_weights
    from eightfold.compress.plan_pruning import plan_module
    from eightfold.compress.surgery.surgery import apply_plan_to_module

    original, pruned = onnx_module(file), onnx_module(file)
    plan = plan_module(original, images(4), keep_ratio=0.5)
    apply_plan_to_module(pruned, plan)
    options = RecoverOptions(device="cpu", amp="off", batch=4, rate=0.03, least_squares=False)
    batches = [images(4, seed) for seed in range(8)]
    done = recover(pruned, original, batches, plan=plan, steps=30, options=options)
    assert done.after > done.before
    answer = answer_of(write_weights(file, pruned, tmp_path / "out.onnx"), batches[0])
    with torch.no_grad():
        torch.testing.assert_close(answer, pruned(batches[0]), atol=1e-4, rtol=1e-4)


def test_the_folder_of_a_pruned_onnx_file(file: Path, tmp_path: Path) -> None:
    from eightfold.compress.onnx.graph_file import onnx_module
    from eightfold.compress.onnx.prune_file import prune_file

    prune_file(file, output=tmp_path / "pruned", keep_ratio=0.5)
    batches = [images(4, seed) for seed in range(8)]
    original = onnx_module(file)
    done = recover(tmp_path / "pruned", original, batches, output=tmp_path / "out", steps=2, options=QUICK)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "plan.json", "source.json"}
    with torch.no_grad():
        wanted = original(batches[0])
    before, after = (
        float((answer_of(tmp_path / name / "model.onnx", batches[0]) - wanted).square().mean())
        for name in ("pruned", "out")
    )
    assert after < before
    assert done.after > done.started - 1e-6  # channels lie elsewhere in memory while it trains
    assert done.started > done.before


def test_the_folder_of_a_pruned_module(tmp_path: Path) -> None:
    from eightfold.compress.surgery.artifacts import load_pruned, save_pruned

    pruned, original, plan = pair()
    save_pruned(pruned, plan, tmp_path / "pruned")
    recover(tmp_path / "pruned", original, images(), output=tmp_path / "out", steps=2, options=QUICK)
    again = load_pruned(lambda: copy.deepcopy(original), tmp_path / "out")
    assert error_of(again, original) < error_of(pruned, original)
    refused(r"has no plan\.json", UsageError, pruned=tmp_path, plan=None)
    refused("got no output", UsageError, pruned=tmp_path / "pruned", plan=None)


def test_a_module_needs_its_plan() -> None:
    refused("recovery of a module got no plan", UsageError, plan=None)


def test_points_are_chosen_by_name(tmp_path: Path) -> None:
    pruned, original, plan = pair()
    before = {name: value.clone() for name, value in pruned.named_parameters()}
    options = RecoverOptions(
        device="cpu", amp="off", batch=4, points=("inner.*",), output_weight=0.0, least_squares=False, rate=0.03
    )
    recover(pruned, original, images(), plan=plan, steps=10, options=options)
    moved = {name for name, value in pruned.named_parameters() if not torch.equal(value, before[name])}
    assert moved <= {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias", "inner.0.weight", "inner.0.bias"}


def refused(match: str, kind: type[EightfoldError] = EightfoldError, **changes: object) -> None:
    pruned, original, plan = pair()
    arguments: dict[str, object] = {"images": images(), "plan": plan, "steps": 2, "options": QUICK}
    arguments |= {"pruned": pruned, "original": original} | changes
    with pytest.raises(kind, match=match) as caught:
        recover(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_no_images() -> None:
    refused("recovery got no images", ImageError, images=torch.zeros(0, 3, 16, 16))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    refused("none of 1 images can be read", ImageError, images=tmp_path, preprocess=Preprocess(height=16, width=16))


def test_images_that_the_network_answers_alike() -> None:
    constant = Net().eval()
    nn.init.zeros_(constant.head.weight)
    pruned = copy.deepcopy(constant)
    plan = prune_module(pruned, images(1), keep_ratio=0.5).plan
    refused("the same output for all images", ImageError, pruned=pruned, original=constant, plan=plan)


def test_an_original_of_another_network() -> None:
    refused("tensor 'stem.0.weight' has shape", PlanMismatchError, original=Net(width=24))


def test_a_network_that_the_plan_does_not_lead_to() -> None:
    refused("the plan leads to", ModelError, pruned=Net())


def test_a_time_too_short_for_one_step() -> None:
    refused("too short for one step", UsageError, steps=None, minutes=1e-6)
    refused("-1 minutes", UsageError, steps=None, minutes=-1)


def test_a_loss_that_is_no_number() -> None:
    pruned, original, plan = pair()
    with torch.no_grad():
        pruned.get_parameter("back.bias").fill_(torch.nan)
        original.get_parameter("head.bias").fill_(torch.nan)
    options = RecoverOptions(device="cpu", amp="off", least_squares=False)
    refused("became nan at step 1, batch 1", ModelError, pruned=pruned, plan=plan, options=options)
    refused("the original's outputs hold NaN", ModelError, original=original, plan=plan)
