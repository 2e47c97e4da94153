"""Recipes of mattes: data, training with the auxiliary heads, errors, a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError, RecipeError
from eightfold.pipeline.job.job import Job
from eightfold.recipe import Recipe
from eightfold.recipe_sections import DataSection, TaskSection, TrainSection
from eightfold.tasks.base import Network, Training
from eightfold.tasks.dense.matted_images import MattedImages, open_mattes
from eightfold.tasks.matte import MatteBatches, MatteTask, with_heads
from eightfold.tasks.networks import module_network
from eightfold.zoo.generated_mattes import write_mattes
from eightfold.zoo.sources.modnet.network import MODNet

RULES = Preprocess(height=64, width=64, resize="letterbox", mean=(0.5,) * 3, std=(0.5,) * 3)
TASK = MatteTask(TaskSection(kind="matte"))
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "task": {"kind": "matte"},
    "output": "runs/tiny",
    "model": {"source": "own_mattes:net"},
    "data": {"source": "mattes:64", "train_images": 4, "test_images": 2},
    "preprocess": {"height": 64, "width": 64, "resize": "letterbox", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    "train": {"epochs": 1, "batch": 2, "learning_rate": 0.01},
    "compress": {"rule": "uniform", "score": "l2", "finetune": {"epochs": 1, "batch": 2}},
    "export": {"batches": [1]},
    "calibrate": {"images": 2},
    "bench": {"threads": 1, "seconds_per_row": 0.01},
    "limits": {"allow_failed": True},
}
CODE = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 1, 1), nn.Sigmoid()
    )
"""


@pytest.fixture
def mattes(tmp_path: Path) -> MattedImages:
    return open_mattes(write_mattes(tmp_path / "data", train=6, test=1, side=64) / "train")


def constant(value: float) -> nn.Module:
    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full_like(images[:, :1], value)

    return Constant()


def network(model: nn.Module) -> Network:
    return module_network(model, RULES, TASK.outputs_mean(()), batch=4)


def test_errors_are_those_of_the_true_mattes(mattes: MattedImages) -> None:
    found = TASK.measure(network(constant(0.0)), mattes)
    means = [mattes.alpha(index).mean() for index in range(len(mattes))]
    np.testing.assert_allclose(found.parts, 1 - np.array(means), atol=1e-6)
    assert found.values["1-mad"] == pytest.approx(1 - np.mean(means), abs=1e-6)
    assert found.values["1-boundary-mad"] < found.values["1-mad"]
    assert TASK.chance(mattes) == pytest.approx(max(np.mean(means), 1 - np.mean(means)))


def test_targets_lie_where_images_do(tmp_path: Path) -> None:
    """A wide image that is its own matte, in a letterbox: transparent beside it, and mirrored with it."""
    for name in ("images", "alphas"):
        (tmp_path / name).mkdir()
        pixels = np.zeros((16, 32, 3), np.uint8)
        pixels[:, :16] = 255
        cv2.imwrite(str(tmp_path / name / "a.png"), pixels)
    batches = MatteBatches(open_mattes(tmp_path), RULES, 1, seed=0)
    sides = set()
    for epoch in range(8):
        [(images, target)] = batches(epoch)
        alpha = target[0, 3]
        assert torch.equal(images, target[:, :3])
        assert not alpha[:16].any()
        torch.testing.assert_close(alpha[16:48], images[0, 0, 16:48] / 2 + 0.5)
        assert set(np.unique(target[0, 4].numpy()).tolist()) == {0.0, 0.5, 1.0}
        sides.add(bool(alpha[32, 0] > 0.5))
    assert sides == {True, False}


def test_training_reaches_the_auxiliary_heads_and_lowers_the_loss(mattes: MattedImages, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODNet()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    section = TrainSection(epochs=1, batch=3, learning_rate=0.01)
    loss = TASK.train(model, Training(mattes, RULES, section, 0, tmp_path / "checkpoint", "training"))
    assert 0 < loss < 20
    still = [name for name, tensor in model.named_parameters() if torch.equal(tensor, before[name])]
    assert still == []


def test_a_network_without_heads_is_trained_on_its_matte() -> None:
    model = constant(0.5)
    assert with_heads(model) is model


def test_modnet_is_pruned_with_its_heads() -> None:
    job = Job(Recipe.model_validate(RECIPE | {"model": {"source": "modnet"}}), Path("runs/tiny"))
    assert isinstance(job.task, MatteTask)
    vars(job)["train_images"] = MattedImages(())
    assert job.networks.trace_arguments == (True,)


# Networks this small are not faster in INT8.
@pytest.mark.filterwarnings("ignore::eightfold.export.int8.int8_speed.SlowInt8Warning")
def test_a_run_on_generated_mattes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_mattes.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    outcome = ef.run(Recipe.model_validate(RECIPE))
    bundle = ef.Bundle.open(tmp_path / "runs/tiny/bundle")
    assert bundle.manifest.task.kind == "matte"
    assert {"baseline", "pruned"} == {each.variant for each in bundle.manifest.artifacts}
    assert outcome is not None
    metrics = {metric.name for each in bundle.manifest.artifacts for metric in each.metrics}
    assert metrics == set(TASK.metrics)
    with ef.Predictor(bundle) as predictor:
        assert predictor.predict(np.zeros((40, 50, 3), np.uint8)).alpha.shape == (40, 50)


def test_bad_data_is_one_line(tmp_path: Path, mattes: MattedImages) -> None:
    with pytest.raises(ImageError, match=r"no folder of images with mattes at nowhere; allowed: .*mattes:SIDE"):
        TASK.write_data(DataSection(source="nowhere"), tmp_path / "out", seed=0)
    folder = tmp_path / "data/train"
    cv2.imwrite(str(folder / "alphas/00001.png"), np.zeros((9, 7), np.uint8))
    with pytest.raises(ImageError, match=r"00001\.png has 7x9 pixels; allowed: 64x64, as its image"):
        open_mattes(folder).alpha(1)
    (folder / "alphas/00003.png").unlink()
    with pytest.raises(ImageError, match=r"00003\.png has no matte in .*alphas; allowed: alphas/00003\.png"):
        open_mattes(folder)
    with pytest.raises(RecipeError, match=r"task\.decode is 'classify' for a network that gives mattes"):
        MatteTask(TaskSection(kind="matte", decode="classify")).check(Recipe.model_validate(RECIPE))
