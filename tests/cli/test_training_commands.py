"""The commands that train: from a network and labelled images to a folder that every command takes; bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.cli.compress.prune import prune
from eightfold.cli.network import load_network
from eightfold.cli.train.distill import distill
from eightfold.cli.train.finetune import finetune
from eightfold.cli.train.iterate import iterate
from eightfold.cli.train.options import checkpoint_beside
from eightfold.cli.train.qat import qat
from eightfold.cli.train.sensitivity import sensitivity
from eightfold.cli.train.sparsify import sparsify
from eightfold.cli.train.train import train
from eightfold.errors import ImageError, ModelError, UnknownNameError, UsageError
from tests.cli.pictures import write_dark_and_bright

pytestmark = pytest.mark.filterwarnings("ignore:.* imports your code")  # the network is code of the test

NETWORK = """
from torch import nn

def small(num_classes=2):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )

def broken(num_classes=2):
    network = small(num_classes)
    nn.init.constant_(network[8].weight, float("nan"))
    return network
"""
OPTIONS: dict[str, Any] = {"size": "16", "batch": 8}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dark and bright images, and a network."""
    (tmp_path / "tiny_networks.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_dark_and_bright(tmp_path / "data", train=8)
    return tmp_path


def test_train_prune_finetune_distill(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("tiny_networks:small", "data", Path("trained"), epochs=12, rate=0.1, **OPTIONS)
    assert "top1" in capsys.readouterr().out
    loaded = load_network("trained")
    assert loaded.size == (16, 16)
    assert not checkpoint_beside(Path("trained")).exists()
    prune("trained", Path("pruned"), keep=0.5)
    finetune("pruned", "data", Path("tuned"), epochs=2, batch=8)
    assert load_network("tuned").module.get_parameter("0.weight").shape[0] == 8
    distill("pruned", "data", Path("distilled"), "trained", loss=["logits=1", "cwd=0.1"], epochs=2, batch=8)
    said = capsys.readouterr().out
    assert "before, " in said
    assert "wrote distilled" in said
    assert load_network("distilled").module.get_parameter("3.weight").shape[0] == 8


def test_sparsify_tells_what_may_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparsify("tiny_networks:small", "data", Path("sparse"), epochs=2, **OPTIONS)
    said = capsys.readouterr().out
    assert "s = " in said
    assert "suggested: --keep" in said
    assert json.loads(Path("sparse.scales.json").read_text())["counts"]


def test_qat_writes_a_graph_that_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    qat("tiny_networks:small", "data", Path("int8.onnx"), epochs=1, **OPTIONS)
    assert "3 layers round their weights and inputs" in capsys.readouterr().out
    session = onnxruntime.InferenceSession("int8.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 16, 16), np.float32)})
    assert found.shape == (1, 2)


def test_sensitivity_by_images_and_by_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"classes": 2, "size": "16", "ratio": [0.5]}
    sensitivity("tiny_networks:small", Path("a.json"), images="data/test/dark", max_macs=0.8, loss=0.5, **options)
    said = capsys.readouterr().out
    assert "ratios for at most 0.8 of MACs: --prune 0.weight=" in said
    sensitivity("tiny_networks:small", Path("b.json"), data="data", plot=Path("b.svg"), **options)
    assert set(json.loads(Path("b.json").read_text())["losses"]) == {"0.weight", "3.weight"}
    assert Path("b.svg").is_file()


def test_iterate_keeps_steps_and_the_best(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iterate("tiny_networks:small", "data", Path("steps"), steps=1, keep=0.5, epochs=1, **OPTIONS)
    said = capsys.readouterr().out
    assert "step   keep  parameters" in said
    assert said.count(" ms") == 2
    assert load_network("steps/best").module.get_parameter("3.weight").shape[0] == 8
    assert Path("steps/steps.svg").is_file()


def test_bad_input_is_one_line(folder: Path) -> None:
    with pytest.raises(ImageError, match="no images at nowhere"):
        train("tiny_networks:small", "nowhere", Path("out"))
    with pytest.raises(ModelError, match=r"net\.onnx has no training code"):
        train("net.onnx", "data", Path("out"))
    with pytest.raises(ModelError, match=r"the (loss|gradient) became nan at step 1, batch 1"):
        train("tiny_networks:broken", "data", Path("out"), epochs=1, **OPTIONS)
    with pytest.raises(UsageError, match="--loss logits; allowed: LOSS=WEIGHT"):
        distill("tiny_networks:small", "data", Path("out"), "tiny_networks:small", loss=["logits"], **OPTIONS)
    with pytest.raises(UsageError, match="--data and --images both"):
        sensitivity("tiny_networks:small", Path("out.json"))
    with pytest.raises(UsageError, match="schedule"):
        sparsify("tiny_networks:small", "data", Path("out"), schedule="sometimes")
    with pytest.raises(UsageError, match=r"-o out; allowed: the name of an \.onnx file"):
        qat("tiny_networks:small", "data", Path("out"))
    with pytest.raises(UnknownNameError, match="scheme"):
        qat("tiny_networks:small", "data", Path("out.onnx"), scheme="afine")
    assert not Path("out").exists()
