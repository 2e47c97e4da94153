"""The pages for users of other systems: their commands run on small networks, their figures are the program's."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import eightfold as ef
from eightfold.cli.app import main
from eightfold.runtime.bundle.manifest import Task
from eightfold.zoo.sources.darknet.cfg import read_cfg
from eightfold.zoo.sources.darknet.weights import save_weights
from eightfold.zoo.sources.modnet.network import MODNet
from tests.docs.test_page_code import RULES, classifier
from tests.export.networks import saved
from tests.zoo.sources.darknet.networks import RESIDUAL, network_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::eightfold.zoo.sources.base.SourceWarning")]

DOCS = Path(__file__).resolve().parents[2] / "docs"
WHOLE = os.environ.get("EIGHTFOLD_WHOLE_PAGES") == "1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """net.cfg, net.weights, net.conv.15's place, modnet.ckpt, photos/, a.png."""
    (tmp_path / "net.cfg").write_text(RESIDUAL)
    save_weights(network_of(RESIDUAL), tmp_path / "net.weights")
    torch.save(MODNet().state_dict(), tmp_path / "modnet.ckpt")
    noise = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", *(f"photos/{number}.png" for number in range(4))):
        cv2.imwrite(str(tmp_path / name), noise.integers(0, 256, (60, 80, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_commands(page: str, monkeypatch: pytest.MonkeyPatch, *, small: bool = False) -> int:
    """Run the page's indented commands; `small` adds a small size to those that build the network by its name. With
    EIGHTFOLD_WHOLE_PAGES=1 they run as they are written (`make test-pages`)."""
    lines = re.findall(r"^ {4}(eightfold .*)$", (DOCS / page).read_text(), re.M)
    for line in lines:
        if WHOLE:
            words = shlex.split(line.partition("  #")[0])
        else:
            words = shlex.split(line.replace("--size 512", "").partition("  #")[0])
            words += ["--size", "64"] if small and "modnet" in words else []
        monkeypatch.setattr("sys.argv", words)
        assert main() == 0, line
    return len(lines)


def test_the_page_on_darknet(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_commands("darknet.md", monkeypatch) == 4
    assert read_cfg("pruned/net.cfg").layers[0].integer("filters", 0) == 8


def test_the_page_on_modnet(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_commands("modnet.md", monkeypatch, small=True) == 4
    assert list(Path("out").iterdir())


def test_the_python_code_on_the_page_on_modnet(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "modnet.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(code if WHOLE else code.replace("512, 512", "64, 64"), "modnet.md", "exec"), {})
    counts = re.search(r"parameters ([\d,]+) -> ([\d,]+)", capsys.readouterr().out)
    assert counts is not None
    assert f"| {counts[2]} |" in page
    assert counts[1] in page


def test_the_page_on_paddledetection(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    page = (DOCS / "paddledetection.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(code, "paddledetection.md", "exec"), {})
    counts = re.search(r"parameters ([\d,]+) -> ([\d,]+)", capsys.readouterr().out)
    assert counts is not None
    assert f"({counts[1]} parameters)" in page
    assert f"({counts[2]} parameters)" in page


def test_the_commands_on_the_page_on_paddledetection(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_commands("paddledetection.md", monkeypatch) == 3
    assert Path("rcnn-bundle/manifest.json").is_file()


def test_the_page_on_yolov8(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ultralytics")
    assert run_commands("yolov8.md", monkeypatch) == 4


def wide_classifier() -> torch.nn.Module:
    """Four classes, with a layer that is wide enough to be pruned."""
    nn = torch.nn
    layers = nn.Conv2d(3, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)
    return nn.Sequential(*layers).eval()


def test_the_page_on_any_network(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"```python\n(# my_nets.py.*?)```", (DOCS / "any-network.md").read_text(), re.S)
    (here / "my_nets.py").write_text(code)
    ef.export_onnx(wide_classifier(), here / "model.onnx", batch=1, image_size=32)
    monkeypatch.syspath_prepend(here)
    assert run_commands("any-network.md", monkeypatch) == 8


def test_the_page_on_serving(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(classifier(), here / "model.onnx")
    RULES.save(here / "preprocess.json")
    task = Task(kind="classify", decode="classify", labels=("a", "b", "c", "d"))
    ef.export_bundle("model.onnx", "model.eightfold", preprocess=RULES, batches=(1, 2), task=task)
    assert run_commands("serving.md", monkeypatch) == 2
    assert (here / "models/classifier/1/model.onnx").is_file()
