"""A Darknet network trained, pruned and measured by a recipe on generated scenes; the recipe that the project ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.run import run
from eightfold.recipe import read_recipe, recipe_from
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.zoo.sources.darknet.cfg import read_cfg
from eightfold.zoo.sources.darknet.source import darknet_task

REPOSITORY = Path(__file__).parents[2]
CFG = REPOSITORY / "recipes/darknet/yolov3-tiny-3.cfg"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::eightfold.zoo.sources.base.SourceWarning")
@pytest.mark.filterwarnings("ignore::eightfold.tasks.detection.training.UnmatchedWarning")
def test_a_cfg_is_trained_pruned_and_trained_again(tmp_path: Path) -> None:
    """The shipped network with an eighth of its filters at 32 pixels; its anchors come from the cfg."""
    narrow = re.sub(r"filters=(\d+)", lambda found: f"filters={_narrow(int(found[1]))}", CFG.read_text())
    (tmp_path / "net.cfg").write_text(narrow)
    training = {"epochs": 1, "batch": 4, "learning_rate": 0.01, "mosaic": 0.0}
    recipe = {
        "name": "darknet",
        "output": "unused",
        "model": {"source": f"darknet:{tmp_path / 'net.cfg'}"},
        "task": {"kind": "detect", "decode": "yolo-anchors", "options": {"score_threshold": 0.01}},
        "data": {"source": "scenes:32:3", "train_images": 4, "test_images": 2},
        "preprocess": {"height": 32, "width": 32, "resize": "letterbox"},
        "train": {**training, "sparsity": 1e-3},
        "compress": {"rule": "regular", "score": "bn_scale", "keep_ratio": 0.5, "finetune": training},
        "export": {"batches": [1]},
        "calibrate": {"images": 4, "method": "minmax"},
        "quantize": {"form": "qdq"},
        "bench": {"backends": ["onnxruntime"], "threads": 1, "seconds_per_row": 0.01},
    }
    run(recipe_from(recipe), output=tmp_path / "run")
    task = Bundle.open(tmp_path / "run" / "bundle").manifest.task
    assert task.options["anchors"] == darknet_task(CFG).options["anchors"]
    facts = Job(recipe_from(recipe), tmp_path / "run")
    before, after = (facts.read(name) for name in (at.BASELINE_FACTS, at.PRUNED_FACTS))
    assert after["macs"] < before["macs"]


def _narrow(filters: int) -> int:
    return filters if filters == 24 else max(16, filters // 8)


def test_the_shipped_recipe_fits_its_cfg() -> None:
    recipe = read_recipe(REPOSITORY / "recipes/darknet.yaml")
    cfg = read_cfg(CFG)
    assert recipe.model.source == "darknet:recipes/darknet/yolov3-tiny-3.cfg"
    assert (cfg.net.integer("height", 0), cfg.net.integer("width", 0)) == (
        recipe.preprocess.height,
        recipe.preprocess.width,
    )
