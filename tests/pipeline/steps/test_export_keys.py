"""What `export.opset` and `export.preprocess` do to everything that follows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from eightfold.errors import UsageError
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.pipeline.run import run
from eightfold.recipe import recipe_from
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.predict.predictor import Predictor

pytestmark = pytest.mark.slow


def rerun(tiny_run: Path, recipe: dict[str, Any], directory: Path) -> Bundle:
    """The bundle of a changed recipe, from the weights of a run that is there already."""
    shutil.copytree(tiny_run, directory)
    run(recipe_from(recipe), output=directory)
    return Bundle.open(directory / "bundle")


def test_the_opset_is_one_that_all_targets_read(tiny_run: Path, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**tiny_recipe, "quantize": {"targets": ["tensorrt:8.2", "cpu-x86"], "form": "qdq"}}
    del recipe["engines"]
    bundle = rerun(tiny_run, recipe, tmp_path / "run")
    versions = {
        (opset_of(model), model.ir_version)
        for artifact in bundle.manifest.artifacts
        for model in [onnx.load(bundle.artifact_path(artifact), load_external_data=False)]
    }
    assert versions == {(13, 7)}


def test_pixels_go_into_all_that_ships(tiny_run: Path, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**tiny_recipe, "export": {**tiny_recipe["export"], "preprocess": "in-graph"}}
    bundle = rerun(tiny_run, recipe, tmp_path / "run")
    manifest = bundle.manifest
    assert (manifest.preprocess.dtype, manifest.preprocess.layout) == ("uint8", "nhwc")
    for artifact in manifest.artifacts:
        assert {spec.dtype for spec in artifact.inputs} == {"uint8"}, artifact.id
    floats = [each for each in manifest.artifacts if each.precision == "fp32"]
    assert {each.steps[-1].name for each in floats} == {"preprocess in graph"}
    before = {each.id: each.metrics for each in Bundle.open(tiny_run / "bundle").manifest.artifacts}
    for each in floats:
        assert each.metrics == before[each.id]
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    answers = []
    for path in (tiny_run / "bundle", tmp_path / "run" / "bundle"):
        with Predictor(path, backend="onnxruntime", precision="fp32") as predictor:
            answers.append(predictor.predict(image).probability)
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)
    quantized = json.loads((tmp_path / "run" / "onnx" / "int8-cpu-x86.json").read_text())
    assert min(step["cosine"] for each in quantized.values() for step in each) > 0.9


def test_pixels_for_a_target_that_takes_none(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    changed = {
        "export": {"batches": [1], "preprocess": "in-graph"},
        "quantize": {"targets": ["tensorrt:8.2"], "form": "qdq"},
    }
    recipe = {key: value for key, value in tiny_recipe.items() if key != "engines"} | changed
    words = "preprocessing in the graph for tensorrt:8.2, which takes no uint8 inputs; allowed: TensorRT 8.5 and later"
    with pytest.raises(UsageError, match=words):
        run(recipe_from(recipe), output=tmp_path / "run")
