"""What a user sees when the input is bad: one line, the right exit code, no traceback, nothing lost."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eightfold.cli.app import main
from eightfold.files import sha256_of_file

pytestmark = pytest.mark.slow  # shares the small run


@pytest.fixture
def bundle(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))


@pytest.fixture
def digit(tiny_run: Path) -> Path:
    return next((tiny_run / "data" / "test").glob("*/*.png"))


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and the error output of `eightfold WORDS`."""
    monkeypatch.setattr(sys, "argv", ["eightfold", *map(str, words)])
    code = main()
    return code, capsys.readouterr().err


class Terminal:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def fails(self, *words: object, code: int = 1) -> str:
        """The one line that `eightfold WORDS` fails with."""
        seen, text = call(self.monkeypatch, self.capsys, *words)
        lines = [line for line in text.splitlines() if line.startswith("eightfold: ")]
        assert (seen, len(lines)) == (code, 1), text
        assert "Traceback" not in text
        return lines[0]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def recipe_file(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_wrong_recipe_key(terminal: Terminal, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "r.yaml", {**tiny_recipe, "trian": {}})
    assert "unknown key trian; allowed: the keys name" in terminal.fails("run", recipe, code=2)


def test_an_unknown_model(terminal: Terminal, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "r.yaml", {**tiny_recipe, "model": {"source": "mobilenet_v9"}})
    line = terminal.fails("run", recipe, "--output", tmp_path / "run", code=2)
    assert "unknown model 'mobilenet_v9'" in line
    assert "did you mean 'mobilenet_v" in line


def test_a_missing_image_folder(terminal: Terminal, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "r.yaml", {**tiny_recipe, "data": {"source": "./no/such/folder"}})
    line = terminal.fails("run", recipe, "--output", tmp_path / "run")
    assert "no image folder ./no/such/folder; allowed: a folder with train/LABEL" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"nonsense", "is not an image"), (b"\x89PNG\r\n\x1a\n123", "is truncated")],
)
def test_an_unreadable_image(terminal: Terminal, bundle: Path, tmp_path: Path, content: bytes, words: str) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(content)
    assert words in terminal.fails("predict", bundle, image)


def test_a_batch_that_is_not_in_the_bundle(terminal: Terminal, bundle: Path, digit: Path) -> None:
    line = terminal.fails("predict", bundle, digit, "--batch", 3, code=2)
    assert "nothing in this bundle has batch 3; allowed: baseline fp32 on onnxruntime, batch 1/2" in line


def test_every_file_is_protected_against_a_flipped_byte(terminal: Terminal, bundle: Path) -> None:
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        original = path.read_bytes()
        changed = bytearray(original)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        terminal.fails("inspect", bundle)
        path.write_bytes(original)
    code, _ = call(terminal.monkeypatch, terminal.capsys, "inspect", bundle)
    assert code == 0


def test_a_manifest_edited_by_hand(terminal: Terminal, bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "tiny"', '"name": "mine"'))
    assert "manifest.json" in terminal.fails("inspect", bundle)


def test_what_is_no_bundle(terminal: Terminal, tmp_path: Path) -> None:
    terminal.fails("inspect", tmp_path)
    terminal.fails("bench", tmp_path / "absent")


def test_a_corrupt_onnx_file(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    assert "model.onnx" in terminal.fails("bench", path)
    assert path.stat().st_size == 1000


def test_a_corrupt_graph_in_a_run_is_made_again(tiny_run: Path, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    from eightfold.pipeline.run import run
    from eightfold.recipe import recipe_from

    directory = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    graph = directory / "onnx" / "pruned-fp32-b1.onnx"
    before = sha256_of_file(graph)
    graph.write_bytes(b"nonsense")
    run(recipe_from(tiny_recipe), output=directory)
    assert sha256_of_file(graph) == before


NETWORKS = """
import sys
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3))
    def forward(self, images):
        return self.layers(images)
class Leaves(Net):
    def forward(self, images):
        sys.exit()
def half():
    return Net().half()
def lazy():
    return nn.Sequential(nn.LazyConv2d(16, 3), nn.Conv2d(16, 8, 3))
made = Net()
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Leaves", "the network's code called exit() while it ran"),
        ("half", "Net has float16 parameters (layers.0.weight); allowed: float32 parameters; call model.float() first"),
        ("lazy", "0.weight has no shape yet: a lazy module gets it from its first input"),
        ("made", "odd_networks:made is a Net; allowed: a function or class that gives a new torch.nn.Module"),
    ],
)
def test_odd_networks(terminal: Terminal, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "odd_networks.py").write_text(NETWORKS)
    terminal.monkeypatch.syspath_prepend(tmp_path)
    assert words in terminal.fails("prune", f"odd_networks:{name}", "--size", 32, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(terminal: Terminal, tmp_path: Path) -> None:
    from eightfold.errors import BundleError

    terminal.monkeypatch.setattr(sys, "argv", ["eightfold", "--debug", "inspect", str(tmp_path)])
    with pytest.raises(BundleError):
        main()


def test_predict_answers_with_label_and_probability(terminal: Terminal, bundle: Path, digit: Path) -> None:
    terminal.monkeypatch.setattr(sys, "argv", ["eightfold", "predict", str(bundle), str(digit)])
    assert main() == 0
    line = terminal.capsys.readouterr().out.strip()
    assert line.startswith(f"{digit}: ")
    label, probability = line.removeprefix(f"{digit}: ").split()[:2]
    assert label in "0123456789"
    assert 0 < float(probability.rstrip("%,")) <= 100
