"""`eightfold recover`: from a pruned directory and a folder of pictures to recovered weights, and its bad input."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from eightfold.cli.compress.prune import prune
from eightfold.cli.compress.recover import recover
from eightfold.compress.train.options import CLOCKS
from eightfold.errors import PlanMismatchError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.* imports your code")  # the network is code of the test

NETWORK = """
from torch import nn

def small(num_classes=4, width=16):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.Conv2d(width, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )

def wide(num_classes=4):
    return small(num_classes, 32)
"""


@pytest.fixture(autouse=True)
def counted_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 0.05 s whenever it is read, so that a run takes as many steps on any machine."""
    ticks = itertools.count()
    monkeypatch.setitem(CLOCKS, "wall", lambda: 0.05 * next(ticks))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "small_networks.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        coarse = rng.integers(0, 255, (4, 4, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), cv2.resize(coarse, (40, 40)))
    return tmp_path


def test_prune_then_recover(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prune("small_networks:small", folder / "pruned", classes=4, size="32")
    options = {"classes": 4, "size": "32", "minutes": 0.02}
    recover(folder / "pruned", "small_networks:small", folder / "photos", folder / "out", **options)  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "agreement with the original on 2 held-out images" in said
    assert {path.name for path in (folder / "out").iterdir()} == {"weights.safetensors", "plan.json", "source.json"}
    assert (folder / "out.csv").read_text().startswith("step,")
    assert not list(folder.glob(".out.recover*"))


def test_a_pruned_onnx_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    import torch
    from small_networks import small  # type: ignore[import-not-found]  # written by the fixture

    from eightfold.export.torch.onnx_export import export_onnx

    torch.manual_seed(0)
    file = str(export_onnx(small(width=32).eval(), folder / "net.onnx", batch=1, image_size=32))
    prune(file, folder / "pruned")
    recover(folder / "pruned", file, folder / "photos", folder / "out", minutes=0.02, batch=1)
    assert "agreement with the original on 2 held-out images" in capsys.readouterr().out
    assert {path.name for path in (folder / "out").iterdir()} == {"model.onnx", "plan.json", "source.json"}


def test_an_original_of_another_network(folder: Path) -> None:
    prune("small_networks:small", folder / "pruned", classes=4, size="32")
    with pytest.raises(PlanMismatchError, match="has shape"):
        recover(folder / "pruned", "small_networks:wide", folder / "photos", folder / "out", classes=4, size="32")


def test_a_directory_that_holds_no_pruned_network(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"has no plan\.json and source\.json"):
        recover(folder / "photos", "small_networks:small", folder / "photos", folder / "out")
