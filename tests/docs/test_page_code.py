"""What the pages show is run as it stands there, in a folder with the files that they speak of: small ones."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper

import eightfold as ef
from eightfold.cli.app import main
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sign import new_key
from tests.docs.test_pages import code_of
from tests.export.networks import graph, saved

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs"
RULES = ef.Preprocess(height=224, width=224)
# What cannot be run here: other files, a board, an optional package's networks, programs other than `eightfold`.
ELSEWHERE = (
    "...",
    "BUNDLE",
    "ssh://",
    "detector.onnx",
    "timm:",
    "runs/",
    "mobilenet_v2",
    "resnet18",
    "pip install",
    "recipes/",
    "compare A B",
)


def classifier() -> onnx.ModelProto:
    """Four classes of any number of images of any size."""
    noise = np.random.default_rng(0)
    weights = {"w": noise.normal(size=(8, 3, 3, 3)), "fc": noise.normal(size=(8, 4))}
    return graph(
        [
            helper.make_node("Conv", ["images", "w"], ["features"], name="conv", strides=[4, 4]),
            helper.make_node("Relu", ["features"], ["active"], name="relu"),
            helper.make_node("GlobalAveragePool", ["active"], ["mean"], name="pool"),
            helper.make_node("Flatten", ["mean"], ["row"], name="flatten"),
            helper.make_node("Gemm", ["row", "fc"], ["logits"], name="fc"),
        ],
        {"images": ["batch", 3, "height", "width"]},
        {"logits": ["batch", 4]},
        {name: values.astype(np.float32) for name, values in weights.items()},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx of free size and batch, model.eightfold, photos/, preprocess.json, a.png, digit.png, image.png."""
    folder = tmp_path_factory.mktemp("files")
    saved(classifier(), folder / "model.onnx")
    noise = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name in ("a.png", "digit.png", "image.png", *(f"photos/{number}.png" for number in range(8))):
        cv2.imwrite(str(folder / name), noise.integers(0, 256, (60, 80, 3), np.uint8))
    RULES.save(folder / "preprocess.json")
    task = Task(kind="classify", decode="classify", labels=("a", "b", "c", "d"))
    ef.export_bundle(folder / "model.onnx", folder / "model.eightfold", preprocess=RULES, batches=(1, 2), task=task)
    return folder


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, as the current folder."""
    folder = Path(shutil.copytree(files, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


def commands(page: str) -> Iterator[list[str]]:
    for line in code_of((DOCS / page).read_text()).splitlines():
        for part in line.partition("#")[0].split(";"):
            if re.match(r"\s*eightfold [a-z]", part) and not any(word in part for word in ELSEWHERE):
                yield shlex.split(part)


def run_commands(page: str, monkeypatch: pytest.MonkeyPatch) -> int:
    done = 0
    for words in commands(page):
        if len(words) < 3:
            continue  # a name in the text
        quick = ["--seconds", "0.01"] if words[1] == "bench" else []
        monkeypatch.setattr("sys.argv", [*words, *quick])
        assert main() == 0, words
        done += 1
    return done


def python_of(page: str) -> str:
    [code, *_] = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)
    return str(code)


@pytest.fixture
def fixed(here: Path) -> Path:
    """The same with model.onnx of fixed size, as all but exporting wants it."""
    ef.freeze_onnx("model.onnx", "model.onnx", image_size=224)
    return here


def test_the_page_on_exporting(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_commands("export.md", monkeypatch) == 1
    assert ef.Bundle.open("bundle").manifest.sizes == ((480, 640), (240, 320))
    exec(compile(python_of("export.md"), "export.md", "exec"), {})
    assert {artifact.batch for artifact in ef.Bundle.open("bundle").manifest.artifacts} == {1, 8}


@pytest.mark.filterwarnings("ignore::eightfold.SlowInt8Warning")  # so small a network has nothing to gain
def test_the_page_on_int8(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_commands("int8.md", monkeypatch) == 4
    made = Path("model-int8.onnx")
    made.unlink()
    exec(compile(python_of("int8.md"), "int8.md", "exec"), {})
    assert made.is_file()


def test_the_front_page(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_commands("index.md", monkeypatch) == 4
    assert Path("report.html").is_file()


def test_the_page_on_bundles(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_key("release.key")  # the page makes it with a bundle of the demo
    assert run_commands("manifest.md", monkeypatch) == 3


def test_the_page_on_running_a_bundle(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_commands("runtime.md", monkeypatch) >= 2
    exec(compile(python_of("runtime.md"), "runtime.md", "exec"), {})
    assert len(Path("answers.jsonl").read_text().splitlines()) == 8
