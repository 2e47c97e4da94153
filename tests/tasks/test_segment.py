"""Segmentation: data, masks in the tensor, loss, metric, a training that learns, and a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.calib.images.preprocess import Preprocess
from eightfold.cli.train.train import train as train_command
from eightfold.errors import ImageError, ModelError, RecipeError
from eightfold.recipe import Recipe
from eightfold.recipe_sections import DataSection, TaskSection, TrainSection
from eightfold.runtime.postprocess.dense import labels_in_image
from eightfold.tasks.base import Network, Training
from eightfold.tasks.dense.masked_images import UNKNOWN, MaskedImages, mask_in_tensor, open_masks
from eightfold.tasks.networks import module_network
from eightfold.tasks.results import results_of
from eightfold.tasks.segment import MaskBatches, SegmentTask, segmentation_loss
from eightfold.zoo.datasets.masked_scenes import write_masked_scenes

RULES = Preprocess(height=32, width=32, resize="letterbox", scale=1 / 255)
TASK = SegmentTask(TaskSection(kind="segment"))
CODE = """
from torch import nn

def net(num_classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16),
        nn.ReLU(), nn.Conv2d(16, num_classes, 1),
    )
"""
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "task": {"kind": "segment"},
    "output": "runs/tiny",
    "model": {"source": "own_segmenters:net"},
    "data": {"source": "masks:32", "train_images": 8, "test_images": 4},
    "preprocess": {"height": 32, "width": 32, "scale": 1 / 255},
    "train": {"epochs": 1, "batch": 4, "learning_rate": 0.01},
    "compress": {"rule": "uniform", "score": "l2", "finetune": {"epochs": 1, "batch": 4}},
    "export": {"batches": [1]},
    "calibrate": {"images": 4},
    "bench": {"threads": 1, "seconds_per_row": 0.01},
    "limits": {"allow_failed": True},
}


@pytest.fixture
def scenes(tmp_path: Path) -> MaskedImages:
    return open_masks(write_masked_scenes(tmp_path / "data", train=12, test=2, side=32) / "train")


class Thresholds(nn.Module):
    """Class by brightness, so that its answers are known without it: 0 below a third, 2 above two."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(1, keepdim=True)
        levels = torch.tensor([0.0, 1 / 3, 2 / 3, 9.0])[None, :, None, None]
        return -(grey - levels).abs() + torch.tensor([0.0, 0, 0, -9])[None, :, None, None]


def network(model: nn.Module, classes: tuple[str, ...]) -> Network:
    return module_network(model, RULES, TASK.outputs_mean(classes), batch=4)


def test_the_metric_is_that_of_a_loop_over_pixels(scenes: MaskedImages, tmp_path: Path) -> None:
    found = TASK.evaluate(network(Thresholds(), scenes.classes), scenes)
    meet, join, right, total = np.zeros(4), np.zeros(4), 0, 0
    for index in range(len(scenes)):
        grey = scenes.load(index).mean(2) / 255
        answer = np.abs(grey[..., None] - np.array([0, 1 / 3, 2 / 3])).argmin(-1)
        truth = scenes.mask(index)
        right, total = right + int((answer == truth).sum()), total + truth.size
        for label in range(4):
            meet[label] += ((answer == label) & (truth == label)).sum()
            join[label] += ((answer == label) | (truth == label)).sum()
    assert found["miou"] == pytest.approx(float(np.mean(meet / join)), abs=2e-3)
    assert found["pixel-accuracy"] == pytest.approx(right / total, abs=2e-3)
    command = results_of(network(Thresholds(), scenes.classes), tmp_path / "data" / "train")
    assert found["miou"] == pytest.approx(command.metrics["mIoU"])
    pixels = np.bincount(np.concatenate([scenes.mask(index).ravel() for index in range(len(scenes))]))
    assert TASK.chance(scenes) == pytest.approx(pixels.max() / pixels.sum() / 4)


def test_masks_lie_where_images_do_and_come_back(tmp_path: Path) -> None:
    """A wide image that is its own mask: unknown beside it in a letterbox, mirrored with it, back by the decoder."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        pixels = np.zeros((8, 16, 3), np.uint8)
        pixels[:, :8] = 1
        cv2.imwrite(str(tmp_path / name / "a.png"), pixels * (255 if name == "images" else 1))
    images = open_masks(tmp_path)
    placement = RULES.place(8, 16)
    placed = mask_in_tensor(images.mask(0), placement)
    assert (placed[:8] == UNKNOWN).all()
    assert (placed[24:] == UNKNOWN).all()
    assert (placed[8:24, :16] == 1).all()
    assert (placed[8:24, 16:] == 0).all()
    assert np.array_equal(labels_in_image(placed, placement), images.mask(0))
    sides = set()
    for epoch in range(8):
        [(rows, target)] = MaskBatches(images, RULES, 1, seed=0)(epoch)
        assert torch.equal(rows[0, 0, 8:24] > 0.5, target[0, 8:24] > 0)
        sides.add(bool(target[0, 12, 0]))
    assert sides == {True, False}


def test_the_loss_leaves_unknown_pixels_out_and_takes_coarse_scores() -> None:
    target = torch.tensor([[[0, 1], [UNKNOWN, 2]]])
    scores = torch.randn(1, 3, 2, 2)
    logs = scores.log_softmax(1)
    slow = -(logs[0, 0, 0, 0] + logs[0, 1, 0, 1] + logs[0, 2, 1, 1]) / 3
    torch.testing.assert_close(segmentation_loss(scores, target), slow)
    torch.testing.assert_close(segmentation_loss({"out": scores[..., :1, :1]}, target), slow_constant(scores, target))
    one = torch.randn(1, 1, 2, 2)
    slow = -(nn.functional.logsigmoid(-one[0, 0, 0, 0]) + nn.functional.logsigmoid(one[0, 0, 0, 1])) / 2
    torch.testing.assert_close(segmentation_loss(one, torch.tensor([[[0, 1], [UNKNOWN, UNKNOWN]]])), slow)


def slow_constant(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    logs = scores[0, :, 0, 0].log_softmax(0)
    return -torch.stack([logs[int(each)] for each in target.flatten() if each != UNKNOWN]).mean()


def test_training_learns_and_wrong_data_is_one_line(scenes: MaskedImages, tmp_path: Path) -> None:
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    exec(CODE, namespace)
    model = namespace["net"]()
    before = TASK.evaluate(network(model, scenes.classes), scenes)["pixel-accuracy"]
    section = TrainSection(epochs=8, batch=4, learning_rate=0.1)
    TASK.train(model, Training(scenes, RULES, section, 0, tmp_path / "checkpoint", "training"))
    assert TASK.evaluate(network(model, scenes.classes), scenes)["pixel-accuracy"] > max(before, 0.5)
    with pytest.raises(ModelError, match="the network knows 4 classes and the masks 2"):
        TASK.require_outputs(network(model, ("a", "b")), np.zeros((4, 3, 32, 32), np.float32), "net")
    few = open_masks(tmp_path / "data" / "train", ("background", "disc"))
    with pytest.raises(ImageError, match=r"has pixels of class [23]; allowed: 0 to 1, or 255"):
        TASK.evaluate(network(model, few.classes), few)
    with pytest.raises(ImageError, match=r"no folder of images with masks at nowhere; allowed: .* or masks:SIDE"):
        TASK.write_data(DataSection(source="nowhere"), tmp_path / "no", seed=0)
    scenes.truths[0].unlink()
    with pytest.raises(ImageError, match=r"000000\.png has no mask in"):
        open_masks(tmp_path / "data" / "train")
    with pytest.raises(RecipeError, match="'yolo-dfl' for a network that segments"):
        SegmentTask(TaskSection(kind="segment", decode="yolo-dfl")).check(Recipe.model_validate(RECIPE))


# Networks this small are not faster in INT8.
@pytest.mark.filterwarnings("ignore::eightfold.export.int8.int8_speed.SlowInt8Warning")
@pytest.mark.filterwarnings("ignore:.* imports your code")
def test_a_recipe_and_a_command_train_segmenters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_segmenters.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ef.run(Recipe.model_validate(RECIPE))
    manifest = json.loads((tmp_path / "runs/tiny/bundle/manifest.json").read_text())
    assert manifest["task"]["labels"] == ["background", "disc", "box", "triangle"]
    names = {metric["name"] for each in manifest["artifacts"] for metric in each["metrics"]}
    assert names == set(TASK.metrics)
    write_masked_scenes("data", train=8, test=2, side=32)
    train_command("own_segmenters:net", "data", Path("out"), epochs=1, rate=0.05, batch=4, size="32")
    assert Path("out/weights.safetensors").is_file()
