"""`export.sizes`: everything that a recipe makes, at every image size, from one calibration."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.report.content import content_of
from eightfold.pipeline.run import run
from eightfold.recipe import recipe_from
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.predict.predictor import Predictor
from tests.conftest import TINY

pytestmark = pytest.mark.slow
SIZES = ((32, 32), (40, 48))
NETWORKS = ("baseline-fp32", "pruned-fp32", "pruned-int8-cpu-x86", "pruned-int8-rtx-sm86")


def sized() -> dict[str, Any]:
    recipe = copy.deepcopy(TINY)
    recipe["export"]["sizes"] = [list(SIZES[1])]
    recipe["quantize"]["equalize"] = True
    return recipe


@pytest.fixture(scope="module")
def directory(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a recipe of two sizes, from the weights of a run that is there already."""
    folder = tmp_path_factory.mktemp("sizes") / "run"
    shutil.copytree(tiny_run, folder)
    run(recipe_from(sized()), output=folder)
    return folder


def test_every_artifact_is_there_at_every_size(directory: Path) -> None:
    manifest = Bundle.open(directory / "bundle").manifest
    graphs = {f"{network}-{size}-b{batch}" for network in NETWORKS for size in ("32x32", "40x48") for batch in (1, 2)}
    engines = {f"pruned-{name}-rtx-sm86-{size}-b1-engine" for name in ("fp16", "int8") for size in ("32x32", "40x48")}
    assert {artifact.id for artifact in manifest.artifacts} == graphs | engines
    for artifact in manifest.artifacts:
        (size,) = (size for size in SIZES if "x".join(map(str, size)) in artifact.id)
        assert artifact.image_size("nchw") == size
    assert {name for name in manifest.files if name.endswith(".weights")} == {
        f"onnx/{network}.weights" for network in NETWORKS
    }


def test_the_metric_is_what_the_runtime_finds_at_that_size(directory: Path) -> None:
    job = Job(recipe_from(sized()), directory)
    images, labels = job.test_images, np.array(job.test_images.labels)
    for size in SIZES:
        for precision in ("fp32", "int8"):
            with Predictor(directory / "bundle", "onnxruntime", precision, size=size) as predictor:
                found = predictor.predict_batch([images.load(place) for place in range(len(images))])
                artifact = predictor.choice.artifacts[-1]
            right = np.mean([images.classes[label] == each.label for label, each in zip(labels, found, strict=True)])
            assert artifact.metrics[0].value == pytest.approx(right, abs=1e-9), artifact.id


def test_one_calibration_serves_all_sizes(directory: Path) -> None:
    bundle = Bundle.open(directory / "bundle")
    scales = []
    for size in ("32x32", "40x48"):
        path = bundle.artifact_path(bundle.artifact(f"pruned-int8-cpu-x86-{size}-b2"))
        model = onnx.load(str(path))
        names = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        constants = {each.name: numpy_helper.to_array(each, str(path.parent)) for each in model.graph.initializer}
        scales.append({name: constants[name].tolist() for name in names})
    assert scales[0] == scales[1] != {}


def test_engines_are_those_of_their_size(directory: Path) -> None:
    for size in SIZES:
        for precision in ("fp16", "int8"):
            name = f"pruned-{precision}-rtx-sm86-{size[0]}x{size[1]}-b1.engine"
            record = EngineRecord.load(sidecar_path(directory / "engines" / name))
            assert record.inputs[0].shape == (1, 3, *size)


def test_the_table_compares_what_has_one_size(directory: Path) -> None:
    table = LatencyTable.load(directory / "latency.json")
    assert table.baseline == "baseline-fp32-32x32"
    for row in table.rows:
        assert (row.speedup is not None) == (row.name in ("pruned-fp32-32x32", "pruned-int8-cpu-x86-32x32")), row.name


def test_the_report_s_headlines_are_about_the_first_size(directory: Path) -> None:
    content = content_of(Job(recipe_from(sized()), directory))
    assert "tiny_classifier:tiny at 32x32 and 48x40, " in content.subtitle
    notes = {card.note for card in content.cards if card.note}
    # FP32 or INT8, whichever was faster here.
    assert notes <= {"pruned-int8-cpu-x86-32x32", "pruned-fp32-32x32"}
    assert notes
    unchanged = {row.artifact for row in content.accuracy if row.change is None and row.value is not None}
    assert unchanged == {f"baseline-fp32-{size}-b{batch}" for size in ("32x32", "40x48") for batch in (1, 2)}
    assert not any("40x48" in check.name for check in content.checks)
