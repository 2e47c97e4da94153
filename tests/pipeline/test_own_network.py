"""A network and weights of the user's own: nothing is trained, and what does not fit together is one line."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eightfold.compress.train.options import CLOCKS
from eightfold.errors import ModelError
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.report.content import content_of, recovery_of
from eightfold.pipeline.run import run
from eightfold.pipeline.steps.train import train_steps
from eightfold.recipe import recipe_from
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1), nn.PReLU(20))
        self.grouped = nn.Conv2d(20, 36, 3, padding=1, groups=4)
        self.back = nn.Conv2d(36, 20, 1)
        self.scale = nn.Parameter(torch.ones(20, 1, 1))
        self.head = nn.Linear(20, classes)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.back(torch.relu(self.grouped(x))) * self.scale
        return self.head(x.mean((2, 3)))

def thousand():
    return Net(1000)
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    (tmp_path / "own_net.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    weights = tmp_path / "weights.safetensors"
    save_file(load_source("own_net:Net", SourceOptions(num_classes=10, seed=5)).module.state_dict(), str(weights))
    yield {
        "name": "own",
        "output": str(tmp_path / "run"),
        "model": {"source": "own_net:Net", "weights": str(weights)},
        "data": {"source": "mnist", "train_images": 60, "test_images": 20},
        "preprocess": {"height": 16, "width": 16},
        "compress": {"score": "l2", "compensate": "lsq", "compensate_images": 32},
        "export": {"batches": [1]},
        "calibrate": {"images": 8},
        "quantize": {"targets": []},
        "bench": {"backends": ["onnxruntime"], "threads": 1, "seconds_per_row": 0.01},
    }
    sys.modules.pop("own_net", None)


@pytest.mark.slow
def test_given_weights_are_pruned_without_training(recipe: dict[str, Any]) -> None:
    result = run(recipe_from(recipe))
    names = [step.name for step in result.steps]
    assert {"load weights", "compensate"} <= set(names)
    assert {"train", "finetune"}.isdisjoint(names)
    given, kept = (load_file(path) for path in (recipe["model"]["weights"], str(result.job.path(at.BASELINE))))
    assert all(torch.equal(given[name], kept[name]) for name in given)
    widths = {row["layer"]: row for row in result.job.read(at.WIDTHS)}
    assert list(widths) == ["stem.0", "grouped", "back", "head"]
    assert widths["grouped"]["in_before"] == 20  # of all groups, where the weight's own shape says 5
    assert widths["grouped"]["in_after"] % 8 == widths["grouped"]["out_after"] % 8 == 0
    checks = {check.name: check.passed for check in content_of(result.job).checks}
    assert checks["Layer widths are multiples of 8"] is True


def test_outputs_that_are_not_the_classes_are_refused(recipe: dict[str, Any]) -> None:
    weights = recipe["model"]["weights"]
    save_file(load_source("own_net:thousand", SourceOptions(num_classes=10)).module.state_dict(), weights)
    recipe["model"]["source"] = "own_net:thousand"
    with pytest.raises(
        ModelError, match=r"own_net:thousand on mnist: the network gives \(1, 1000\) for one image; allowed: \(1, 10\)"
    ):
        run(recipe_from(recipe))
    assert not Job(recipe_from(recipe), Path(recipe["output"])).path(at.BASELINE).exists()


def test_the_pruned_network_is_recovered_without_labels(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # instead of seconds, so that the run takes as many steps on any machine
    monkeypatch.setitem(CLOCKS, "wall", lambda: 0.1 * next(ticks))
    recipe["compress"] |= {"rule": "measured", "recover_minutes": 0.1, "compensate": "none", "compensate_images": 16}
    job = Job(recipe_from(recipe), Path(recipe["output"]))
    steps = {step.name: step for step in train_steps(job)}
    assert list(steps) == ["data", "load weights", "prune", "recover"]
    assert at.DATA in steps["prune"].inputs  # the rule looks at images
    for step in steps.values():
        step.action(tmp_path)
    assert job.path(at.RECOVERY_LOG).read_text().startswith("step,")
    assert {"weights.safetensors", "plan.json"} <= {path.name for path in job.path(at.PRUNED).iterdir()}
    curves = recovery_of(job)
    assert len(curves.steps) == len(curves.feature_errors) > 0
    assert max(curves.agreements) >= curves.agreements[0]
