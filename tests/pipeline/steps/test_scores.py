"""Every score can be asked for in a recipe: those that look at images or at a loss get the training images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eightfold.calib.images.image_set import ImageWarning
from eightfold.compress.criteria.scores import CRITERIA, NEEDS
from eightfold.compress.plan.plan import PrunePlan
from eightfold.errors import RecipeError
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.runner import run_steps
from eightfold.pipeline.run import _job, _steps
from eightfold.recipe import recipe_from
from eightfold.zoo.user_code import import_current
from tests.pipeline.images import write_classes

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=2):
        super().__init__(
            nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
        )
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    (tmp_path / "scored_net.py").write_text(NET)
    write_classes(tmp_path / "data", each=6, size=16)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    save_file(import_current("scored_net").Net().state_dict(), "weights.safetensors")
    yield {
        "name": "scored",
        "output": "run",
        "model": {"source": "scored_net:Net", "weights": "weights.safetensors"},
        "data": {"source": "data"},
        "preprocess": {"height": 16, "width": 16},
        "compress": {"rule": "uniform", "compensate_images": 8},
    }
    sys.modules.pop("scored_net", None)


def prune_by(recipe: dict[str, Any], score: str) -> PrunePlan:
    changed = recipe_from({**recipe, "compress": {**recipe["compress"], "score": score}})
    steps = [step for step in _steps(_job(changed, "run")) if step.name in ("data", "load weights", "prune")]
    run_steps(Path("run"), steps, lambda _: None)
    return PrunePlan.load(Path("run", at.PLAN))


@pytest.mark.parametrize("score", sorted(CRITERIA))
def test_each_score_prunes(recipe: dict[str, Any], score: str) -> None:
    plan = prune_by(recipe, score)
    assert plan.score == score
    assert {len(kept) for kept in plan.kept.values()} == {8}


@pytest.mark.parametrize("score", [name for name, needs in NEEDS.items() if needs == "loss"])
def test_a_loss_is_asked_for_before_the_first_step(recipe: dict[str, Any], tmp_path: Path, score: str) -> None:
    """A detector has none here."""
    task = {"kind": "detect", "decode": "yolo-dfl"}
    changed = {**recipe, "task": task, "compress": {"score": score}}
    with pytest.raises(RecipeError, match=f"compress.score is {score}, which needs a loss.*lsq looks at images alone"):
        _job(recipe_from(changed), tmp_path / "run")


def test_images_in_both_parts_are_told(recipe: dict[str, Any]) -> None:
    for place in range(3):
        source = Path(f"data/train/dark/{place}.png")
        Path(f"data/test/dark/copy{place}.png").write_bytes(source.read_bytes())
    with pytest.warns(ImageWarning, match="3 of 12 training images are also test images"):
        prune_by(recipe, "l2")
