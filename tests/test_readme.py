"""What the README shows is run as it stands there, with a smaller network and smaller images."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from eightfold.recipe import recipe_from

# What a test cannot wait for.
SMALLER = {"resnet50": "resnet18", "224": "64", 'bench("model-int8.onnx")': 'bench("model-int8.onnx", seconds=0.05)'}
README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_stages_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for number in range(16):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), noise.integers(0, 256, (80, 90, 3), np.uint8))
    [code] = [block for block in blocks("python") if "plan_pruning" in block]
    monkeypatch.chdir(tmp_path)
    for seen, instead in SMALLER.items():
        assert seen in code
        code = code.replace(seen, instead)
    exec(compile(code, "README.md", "exec"), {})
    for name in ("pruned/plan.json", "model.onnx", "model-int8.onnx", "model-qdq.onnx", "model.engine"):
        assert (tmp_path / name).stat().st_size > 0


def test_the_recipe_is_valid() -> None:
    [recipe] = blocks("yaml")
    assert recipe_from(yaml.safe_load(recipe)).train.epochs == 0
