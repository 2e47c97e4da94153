"""Their trainer trains a pruned network, and a trainer that has changed is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import eightfold as ef
from eightfold.errors import ModelError
from eightfold.zoo.ultralytics_trainer import pruned_trainer

pytest.importorskip("ultralytics", reason="the extra [ultralytics] is not installed")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images with one box each, of 80 classes."""
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), random.integers(0, 256, (64, 64, 3), np.uint8))
        (tmp_path / f"labels/{number}.txt").write_text(f"{number} 0.5 0.5 0.4 0.4\n")
    names = "".join(f"  {index}: c{index}\n" for index in range(80))
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames:\n{names}")
    return tmp_path / "data.yaml"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_a_pruned_network_is_trained_in_place_and_in_float32(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.data import utils
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.models import YOLO

    # Reads their own log with polars, which is not installed beside the tests.
    monkeypatch.setattr(BaseTrainer, "read_results_csv", lambda self: {})
    monkeypatch.setattr(utils, "check_font", lambda *_: None)  # would look for one on the internet
    network: Any = YOLO("yolov8n.yaml").model
    ef.prune(network, torch.zeros(1, 3, 64, 64), keep_ratio=0.5)
    widths = {name: tensor.shape for name, tensor in network.state_dict().items()}
    before = network.state_dict()["model.0.conv.weight"].clone()
    YOLO("yolov8n.yaml").train(
        trainer=pruned_trainer(network),
        data=str(data),
        epochs=1,
        imgsz=64,
        batch=2,
        workers=0,
        device="cpu",
        plots=False,
        project=str(data.parent / "runs"),
    )
    after = network.state_dict()
    assert {name: tensor.shape for name, tensor in after.items()} == widths
    assert after["model.0.conv.weight"].dtype == torch.float32
    assert not torch.equal(after["model.0.conv.weight"], before)


def test_a_trainer_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.models.yolo.detect import DetectionTrainer

    monkeypatch.setattr(DetectionTrainer, "get_model", lambda self, recipe: None)
    with pytest.raises(
        ModelError,
        match=r"the trainer of ultralytics \S+ has changed: get_model\(recipe\); "
        r"allowed: get_model\(cfg, weights, verbose\), as version 8\.4\.190 has it",
    ):
        pruned_trainer(torch.nn.Identity())
    monkeypatch.delattr(DetectionTrainer, "get_model")
    monkeypatch.delattr("ultralytics.engine.trainer.BaseTrainer.get_model")
    with pytest.raises(ModelError, match="has changed: no such method"):
        pruned_trainer(torch.nn.Identity())


def test_another_number_of_classes_is_refused() -> None:
    from ultralytics.models import YOLO

    network: Any = YOLO("yolov8n.yaml").model
    made: Any = object.__new__(pruned_trainer(network))
    made.data = {"nc": 80}
    assert made.get_model() is not None
    made.data = {"nc": 3}
    with pytest.raises(ModelError, match="the network has 80 classes and the data 3; allowed: as many"):
        made.get_model()
