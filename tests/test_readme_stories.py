"""The three stories of the README, run command by command as they stand there, on small networks and pictures."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import eightfold as ef
from eightfold.cli.app import main

README = (Path(__file__).parents[1] / "README.md").read_text()
SIDE, CLASSES, TIMM = 64, 2, "test_resnet"
# What a test cannot wait for. `--force`: networks with random weights need not become faster, nor agree.
SMALLER = {
    "compress": ["--seconds", "0.01", "--batch", "1", "--minutes", "0", "--force"],
    "bench": ["--seconds", "0.01"],
}
# The smallest network of the library.
REPLACED = {"timm:resnet18": f"timm:{TIMM} --size {SIDE}"}
MY_NETS = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10))
"""
pytestmark = [
    pytest.mark.slow,
    # Of so small a network INT8 is slower, which is no fault of it.
    pytest.mark.filterwarnings("ignore::eightfold.export.int8.int8_speed.SlowInt8Warning"),
    pytest.mark.filterwarnings("ignore::eightfold.export.int8.quantize.LossyInt8Warning"),
]


class Detector(nn.Module):
    """Boxes and scores at strides 8, 16 and 32, as Ultralytics exports a YOLOv8: (batch, 4 + classes, cells)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 2, 2), nn.ReLU())
        self.down = nn.ModuleList(nn.Conv2d(32, 32, 2, 2) for _ in range(2))
        self.heads = nn.ModuleList(nn.Conv2d(32, 4 + CLASSES, 1) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        maps = [self.stem(images)]
        for layer in self.down:
            maps.append(torch.relu(layer(maps[-1])))
        cells = torch.cat([head(x).flatten(2) for head, x in zip(self.heads, maps, strict=True)], 2).sigmoid()
        return torch.cat([cells[:, :4] * SIDE, cells[:, 4:]], 1)


def commands(story: str) -> list[list[str]]:
    """The commands of the first `sh` block behind the words that open a story."""
    block = re.search(rf"\*{re.escape(story)}.*?```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None, f"the README has no story that begins with {story!r}"
    return [shlex.split(_smaller(line)) for line in block[1].strip().splitlines()]


def _smaller(line: str) -> str:
    for seen, instead in REPLACED.items():
        line = line.replace(seen, instead)
    return line


def run(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = commands(story)
    assert len(found) >= 3
    for words in found:
        monkeypatch.setattr(sys, "argv", [*words, *SMALLER.get(words[1], [])])
        assert main() == 0, words


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos/0.png ... photos/15.png."""
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(16):
        coarse = random.integers(0, 256, (6, 7, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), cv2.resize(coarse, (84, 72)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_i_have_an_onnx_file(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    ef.export_onnx(Detector(), folder / "yolo.onnx", batch=1, image_size=SIDE)
    model = onnx.load(folder / "yolo.onnx")
    model.metadata_props.add(key="names", value="{0: 'cat', 1: 'dog'}")
    onnx.save(model, folder / "yolo.onnx")
    run("I have an ONNX file", monkeypatch)
    told = capfd.readouterr().out
    assert re.search(r"^(good|bad|not shown): .*pruned", told, re.MULTILINE)
    assert re.search(r"\b(cat|dog)\b", told)  # what `predict` found
    assert ef.Bundle.open(folder / "yolo.eightfold").manifest.task.labels == ("cat", "dog")


def test_i_train_in_my_own_loop(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    timm = pytest.importorskip("timm", reason="the extra [timm] is not installed")
    torch.save(timm.create_model(TIMM, num_classes=10).state_dict(), folder / "trained.pt")
    run("I train with Ultralytics, timm or my own loop", monkeypatch)
    assert f"pruned from timm:{TIMM}" in capfd.readouterr().out
    assert (folder / "out" / "bundle" / "manifest.json").is_file()


def test_i_have_only_a_torch_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_nets.py").write_text(MY_NETS)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    run("I have only a torch module", monkeypatch)
    printed = capfd.readouterr().out
    # In narrow terminals a candidate's name stands on a line of its own.
    assert re.search(r"^(?: +1 +)?build onnxruntime", printed, re.MULTILINE)
    assert re.search(r"^(?: +1 +)?bundle pruned-fp32", printed, re.MULTILINE)
