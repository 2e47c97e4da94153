"""A finished run does again what a changed input decides, whatever the input is, and says which one changed."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import eightfold
from eightfold.pipeline.job.dry_run import StepPreview, foresee
from eightfold.pipeline.job.runner import PipelineStep, run_steps
from eightfold.pipeline.run import _job, _steps
from eightfold.recipe import recipe_from
from eightfold.runtime.backends import open_session
from eightfold.zoo.user_code import code_of, import_current
from tests.pipeline.images import write_classes

NET = """
import json
from pathlib import Path

import torch
from torch import nn

from my_parts.blocks import Block

WIDTH = json.loads((Path(__file__).parent / "settings" / "net.json").read_text())["width"]

class Net(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 3, 2, 1), nn.SiLU())
        self.block = Block(WIDTH)
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))

def build(num_classes):
    import late_part
    late_part.touch()
    return Net(num_classes)
"""
BLOCKS = """
import importlib
from torch import nn
from . import scaling

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.other = importlib.import_module("named_part").OTHER

    def forward(self, x):
        return scaling.scaled(x + self.conv(x))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a network in several modules, weights, and two classes of images."""
    folder = tmp_path / "project"
    files = {
        "my_net.py": NET,
        "my_parts/__init__.py": "",
        "my_parts/blocks.py": BLOCKS,
        "my_parts/scaling.py": "def scaled(x):\n    return 1.0 * x\n",
        "late_part.py": "def touch():\n    pass\n",
        "named_part.py": "OTHER = 1\n",
        "unused.py": "OTHER = 1\n",
        "settings/net.json": '{"width": 16}',
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    write_classes(folder / "data", each=4, size=16)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    torch.manual_seed(3)
    save_file(import_current("my_net").build(2).state_dict(), "weights.safetensors")
    yield folder
    for name in ("my_net", "my_parts", "my_parts.blocks", "my_parts.scaling", "late_part", "named_part"):
        sys.modules.pop(name, None)


def recipe_data() -> dict[str, Any]:
    return {
        "name": "own",
        "output": "run",
        "model": {"source": "my_net:build", "weights": "weights.safetensors"},
        "data": {"source": "data"},
        "preprocess": {"height": 16, "width": 16},
        "compress": {"rule": "uniform", "score": "l2", "compensate": "lsq", "compensate_images": 4},
        "export": {"batches": [1]},
        "calibrate": {"images": 4, "method": "minmax"},
        "quantize": {"targets": ["cpu-x86"], "form": "qdq"},
        "bench": {"backends": ["onnxruntime"], "threads": 1, "seconds_per_row": 0.01},
    }


def steps_of(recipe: dict[str, Any]) -> list[PipelineStep]:
    return _steps(_job(recipe_from(recipe), "run"))


def pretend(step: PipelineStep) -> PipelineStep:
    """The step with files of its own making in place of the work."""

    def write(_: Path) -> str:
        for name in step.outputs:
            Path("run", name).parent.mkdir(parents=True, exist_ok=True)
            Path("run", name).write_text(step.name)
        return ""

    return dataclasses.replace(step, action=write)


def outlook_after(change: Callable[[dict[str, Any]], None]) -> dict[str, StepPreview]:
    recipe = recipe_data()
    run_steps(Path("run"), [pretend(step) for step in steps_of(recipe)], lambda _: None)
    assert {step.state for step in foresee(Path("run"), steps_of(recipe))} == {"up to date"}
    change(recipe)
    return {step.name: step for step in foresee(Path("run"), steps_of(recipe))}


def negate_head(_: dict[str, Any]) -> None:
    state = load_file("weights.safetensors")
    save_file({**state, "head.weight": -state["head.weight"]}, "weights.safetensors")


def replaced(name: str, old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def replace(_: dict[str, Any]) -> None:
        text = Path(name).read_text()
        assert old in text
        Path(name).write_text(text.replace(old, new))

    return replace


def other_pixels(_: dict[str, Any]) -> None:
    path = sorted(Path("data/train").rglob("*.png"))[0]
    path.write_bytes(sorted(Path("data/test").rglob("*.png"))[-1].read_bytes())


def other_label(_: dict[str, Any]) -> None:
    path = sorted(Path("data/test/dark").iterdir())[0]
    path.rename(Path("data/test/light/moved.png"))


def key(section: str, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe[section].update({name: value})


def version_of(package: str) -> Callable[[dict[str, Any]], None]:
    def change(_: dict[str, Any]) -> None:
        patch = pytest.MonkeyPatch()
        patch.setattr(
            "eightfold.versions.distributions_of", lambda name: {name: "99"} if name == package else {name: "1"}
        )
        PATCHES.append(patch)

    return change


def own_version(_: dict[str, Any]) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(eightfold, "__version__", "99.0")
    PATCHES.append(patch)


def other_machine(_: dict[str, Any]) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr("eightfold.runtime.bench.latency.device_identity", lambda device: ("another processor",))
    PATCHES.append(patch)


PATCHES: list[pytest.MonkeyPatch] = []


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    yield
    while PATCHES:
        PATCHES.pop().undo()


NETWORK = {"prune", "export baseline", "export pruned"}  # all that hold or run the user's network
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], set[str], str]] = {
    "weights": (negate_head, NETWORK, "model.weights"),
    "module": (replaced("my_net.py", "SiLU", "ReLU"), NETWORK, "code.my_net.py"),
    "import": (replaced("my_parts/blocks.py", "padding=1", "padding=1, bias=True"), NETWORK, "code.my_parts/blocks.py"),
    "relative import": (replaced("my_parts/scaling.py", "1.0", "2.0"), NETWORK, "code.my_parts/scaling.py"),
    "package": (replaced("my_parts/__init__.py", "", "X = 1\n"), NETWORK, "code.my_parts/__init__.py"),
    "late import": (replaced("late_part.py", "pass", "return 1"), NETWORK, "code.late_part.py"),
    "named import": (replaced("named_part.py", "1", "2"), NETWORK, "code.named_part.py"),
    "file that the code reads": (replaced("settings/net.json", "16", "24"), NETWORK, "code.net.json"),
    "pixels": (other_pixels, {"data"}, "data.content"),
    "labels": (other_label, {"data"}, "data.content"),
    "mean": (key("preprocess", "mean", [0.5, 0.5, 0.5]), {*NETWORK, "calibrate", "evaluate"}, "preprocess.mean"),
    "seed": (lambda recipe: recipe.update(seed=7), {*NETWORK, "data", "calibrate"}, "seed 0 -> 7"),
    "score": (key("compress", "score", "l1"), {"prune"}, 'compress.score "l2" -> "l1"'),
    "calibration": (key("calibrate", "method", "mse"), {"calibrate"}, 'calibrate.method "minmax" -> "mse"'),
    "calibration images": (key("calibrate", "images", 3), {"calibrate", "quantize cpu-x86"}, "images 4 -> 3"),
    "threads": (key("bench", "threads", 2), {"bench"}, "bench.threads 1 -> 2"),
    "eightfold": (
        own_version,
        {*NETWORK, "data", "calibrate", "quantize cpu-x86", "evaluate", "bench", "report", "bundle"},
        f'versions.eightfold "{eightfold.__version__}" -> "99.0"',
    ),
    "torch": (version_of("torch"), NETWORK, "versions.torch"),
    "onnxruntime": (
        version_of("onnxruntime"),
        {"calibrate", "quantize cpu-x86", "evaluate", "bench"},
        "versions.onnxruntime",
    ),
    "another machine": (other_machine, {"bench"}, "device"),
}


@pytest.mark.parametrize(("change", "expected", "named"), CHANGES.values(), ids=CHANGES)
def test_what_changed_is_done_again_and_named(
    project: Path, change: Callable[[dict[str, Any]], None], expected: set[str], named: str
) -> None:
    outlook = outlook_after(change)
    would = {name for name, step in outlook.items() if step.state == "would run"}
    assert expected <= would, outlook
    assert any(named in outlook[name].why for name in expected), [outlook[name].why for name in expected]


def test_what_nothing_depends_on_changes_nothing(project: Path) -> None:
    def change(recipe: dict[str, Any]) -> None:
        Path("unused.py").write_text("OTHER = 2\n")
        Path("weights.safetensors").rename("moved.safetensors")
        recipe["model"]["weights"] = "moved.safetensors"

    outlook = outlook_after(change)
    assert {name for name, step in outlook.items() if step.state != "up to date"} <= {"report", "bundle"}


def test_images_behind_a_link_to_a_folder_count(project: Path) -> None:
    (project / "data" / "train").rename(project / "elsewhere")
    (project / "data" / "train").symlink_to(project / "elsewhere", target_is_directory=True)

    def change(_: dict[str, Any]) -> None:
        path = sorted((project / "elsewhere").rglob("*.png"))[0]
        path.unlink()

    assert outlook_after(change)["data"].state == "would run"


def test_a_computed_import_counts_every_module_beside_it(project: Path) -> None:
    Path("my_net.py").write_text("import importlib\nPART = importlib.import_module('un' + 'used')\n")
    assert {"unused", "late_part", "my_parts.scaling"} <= code_of("my_net").modules.keys()


def test_edited_code_is_loaded_again_by_the_same_process(project: Path) -> None:
    """Also where size and second of the change are the same, by which Python takes bytecode for current."""
    before = import_current("my_net").build(2).stem[1]
    status = Path("my_net.py").stat()
    Path("my_net.py").write_text(NET.replace("SiLU", "ReLU"))
    os.utime("my_net.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = import_current("my_net").build(2).stem[1]
    assert (type(before), type(after)) == (torch.nn.SiLU, torch.nn.ReLU)


def test_the_graph_answers_as_the_network_does_now(project: Path) -> None:
    """By arithmetic on its last layer, after new weights and after new code, in one process."""
    first = _exported(lambda _: None)
    replaced("my_parts/scaling.py", "1.0", "3.0")({})
    changed = _exported(negate_head)
    bias = load_file("weights.safetensors")["head.bias"].numpy()
    np.testing.assert_allclose(changed - bias, -3 * (first - bias), rtol=1e-4, atol=1e-5)


def _exported(change: Callable[[dict[str, Any]], None]) -> np.ndarray[Any, Any]:
    """The answers of the baseline's graph after the steps that make it."""
    recipe = recipe_data()
    change(recipe)
    wanted = [step for step in steps_of(recipe) if step.name in ("data", "load weights", "export baseline")]
    run_steps(Path("run"), wanted, lambda _: None)
    return _answers(Path("run/onnx/baseline-fp32-b1.onnx"))


def _answers(path: Path) -> np.ndarray[Any, Any]:
    session = open_session(path, "onnxruntime")
    slot = session.new_slot()
    slot.run_on({session.inputs[0].name: np.full((1, 3, 16, 16), 0.25, np.float32)})
    return next(iter(slot.outputs.values())).copy()
