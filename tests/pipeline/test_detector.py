"""A detector through a whole recipe: nothing is trained, and every artifact has its mean average precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from eightfold.export.compare.compare import compare_artifacts
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.report.content import content_of
from eightfold.pipeline.run import run
from eightfold.pipeline.steps.prune import prune_baseline
from eightfold.recipe import recipe_from
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact
from eightfold.runtime.predict.predictor import Predictor
from eightfold.tasks.average_precision import average_precision
from eightfold.tasks.boxes import FILE, from_coco
from eightfold.tasks.compare import compare_by_task
from tests.pipeline.killing import run_killed_in, saved_recipe

pytestmark = pytest.mark.slow
Recipe = dict[str, Any]


def artifacts(directory: Path) -> dict[str, Artifact]:
    return {artifact.id: artifact for artifact in Bundle.open(directory / "bundle").manifest.artifacts}


def metrics(artifact: Artifact) -> dict[str, float]:
    return {metric.name: metric.value for metric in artifact.metrics}


def test_the_bundle_says_how_raw_heads_are_read(raw_run: Path) -> None:
    task = Bundle.open(raw_run / "bundle").manifest.task
    assert (task.kind, task.decode, task.labels) == ("detect", "yolo-dfl", ("square", "disc", "triangle"))
    assert task.options == {"reg_max": 1, "score_threshold": 0.1}


def test_every_artifact_has_its_precision(raw_run: Path) -> None:
    measured = artifacts(raw_run)
    assert set(measured) == {
        f"{curve}-b{batch}" for curve in ("baseline-fp32", "pruned-fp32", "pruned-int8-cpu-x86") for batch in (1, 2)
    }
    for artifact in measured.values():
        assert list(metrics(artifact)) == ["map50-95", "map50"]
        assert {metric.images for metric in artifact.metrics} == {24}
    assert metrics(measured["baseline-fp32-b1"])["map50"] > 0.3
    assert metrics(measured["baseline-fp32-b1"]) == pytest.approx(metrics(measured["baseline-fp32-b2"]))


@pytest.mark.parametrize("made", ["raw_run", "decoded_run"])
def test_the_precision_is_what_the_runtime_finds(made: str, shapes: Path, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(made)
    images = from_coco(shapes / "data" / "test" / "annotations.json")
    for precision in ("fp32", "int8"):
        with Predictor(directory / "bundle", backend="onnxruntime", precision=precision) as predictor:
            found = predictor.predict_batch([str(item) for item in images.items])
            artifact = next(each for each in predictor.choice.artifacts if each.batch == 2)
        assert metrics(artifact) == pytest.approx(average_precision(images, found), abs=1e-3)


@pytest.mark.parametrize("made", ["raw_run", "decoded_run"])
def test_a_comparison_measures_both(made: str, shapes: Path, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(made)
    names = "pruned-fp32-b2", "pruned-int8-cpu-x86-b2"
    truth = str(shapes / "data" / "test" / "annotations.json")
    ends = [f"{directory / 'bundle'}:{name}" for name in names]
    found = compare_artifacts(*ends, labelled=truth, judge=compare_by_task).agreement
    assert found is not None
    measured = [metrics(artifacts(directory)[name])["map50-95"] for name in names]
    assert [found.first_value, found.second_value] == pytest.approx(measured, abs=1e-3)
    assert found.describe().startswith("mAP50-95 on 24 images: ")


def test_channels_go_and_outputs_stay(raw_run: Path) -> None:
    widths = {row["layer"]: row for row in json.loads((raw_run / "plan" / "widths.json").read_text())}
    assert widths["head"]["out_after"] == widths["head"]["out_before"] == 7
    assert widths["head"]["in_after"] < widths["head"]["in_before"]
    assert all(row["out_after"] % 8 == 0 for name, row in widths.items() if name != "head")


def test_layers_to_be_left_alone(raw_run: Path, detector_recipe: Recipe, tmp_path: Path) -> None:
    job = Job(recipe_from({**detector_recipe, "compress": {"ignore": ["body.1.*"], "score": "l2"}}), tmp_path)
    shutil.copytree(raw_run / "baseline", tmp_path / "baseline")
    shutil.copytree(raw_run / "data", tmp_path / "data")
    prune_baseline(job, tmp_path)
    widths = {row["layer"]: row for row in job.read("plan/widths.json")}
    assert widths["head"]["in_after"] == widths["head"]["in_before"]
    assert any(row["out_after"] < row["out_before"] for row in widths.values())


def test_the_report_speaks_of_average_precision(raw_run: Path, detector_recipe: Recipe) -> None:
    content = content_of(Job(recipe_from(detector_recipe), raw_run))
    (card,) = (card for card in content.cards if "mAP" in card.label)
    # The headline is about what a Predictor runs, which this machine's times decide.
    with Predictor(raw_run / "bundle") as predictor:
        chosen = next(each for each in predictor.choice.artifacts if each.batch == 1)
    measured = metrics(chosen)
    assert card.label == "mAP50-95"
    assert card.value == pytest.approx(100 * measured["map50-95"])
    assert {row.metric for row in content.accuracy} == {"mAP50-95", "mAP50"}
    text = (raw_run / "bundle" / "report.html").read_text()
    assert "mAP50-95" in text
    assert "top-1" not in text.lower()


def test_decoded_graphs_find_the_same(raw_run: Path, decoded_run: Path) -> None:
    before, after = artifacts(raw_run), artifacts(decoded_run)
    assert set(after) == set(before)
    for name, artifact in after.items():
        # Preprocessing in the graph rounds differently, too, and a box at a threshold may fall on either side. INT8
        # rounds everything behind it, and saturates on processors without VNNI.
        bound = 0.03 if "int8" in name else 0.01
        assert metrics(artifact) == pytest.approx(metrics(before[name]), abs=bound), name


def test_decoded_graphs_put_out_detections(decoded_run: Path) -> None:
    task = Bundle.open(decoded_run / "bundle").manifest.task
    assert (task.decode, task.options) == ("end-to-end", {"score_threshold": 0.1, "max_detections": 300})
    for artifact in artifacts(decoded_run).values():
        (output,) = artifact.outputs
        assert (output.shape[0], output.shape[2]) == (artifact.batch, 6)
        step = artifact.steps[-1]
        assert step.name == "decode in graph"
        assert step.max_abs_error is not None
        assert step.max_abs_error < 0.01  # pixels
        assert step.notes[0].startswith(f"on {16 // artifact.batch * artifact.batch} images: ")
    assert not any("raw" in name for name in Bundle.open(decoded_run / "bundle").manifest.files)


def test_int8_is_bounded_by_average_precision(raw_run: Path, detector_recipe: Recipe, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(raw_run, tmp_path / "run"))
    changed = {**detector_recipe, "quantize": {"max_drop": 100.0, "form": "qdq", "weight_bits": 8}}
    made = [step.name for step in run(recipe_from(changed), output=directory).steps if not step.skipped]
    assert made[0] == "quantize cpu-x86"
    told = (directory / "onnx" / "search-cpu-x86.txt").read_text()
    assert told.startswith("mAP50-95 of FP32: ")


def stable(directory: Path) -> dict[str, str]:
    files = json.loads((directory / "bundle" / "manifest.json").read_text())["files"]
    wanted = [name for name in files if name.startswith("onnx/")] + ["plan.json", "ranges.json"]
    return {name: files[name]["sha256"] for name in wanted}


def test_a_run_killed_while_it_decodes_ends_the_same(
    decoded_run: Path, decoding_recipe: Recipe, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(decoded_run, tmp_path / "run"))
    for name in ("quantize cpu-x86", "decode", "bundle"):
        (directory / "steps" / f"{name}.json").unlink()
    for name in ("onnx", "bundle"):
        shutil.rmtree(directory / name)
    recipe = saved_recipe(tmp_path, decoding_recipe)
    for place in (3, 11, 19):
        change = run_killed_in("decode", recipe, directory, place=place)
        assert Path(change.partition(" ")[2]).parent == directory / "onnx"
    run(recipe_from(decoding_recipe), output=directory)
    assert stable(directory) == stable(decoded_run)
    assert names(directory) == names(decoded_run)
    assert all(step.skipped for step in run(recipe_from(decoding_recipe), output=directory).steps)


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_moved_box_starts_the_run_over(raw_run: Path, detector_recipe: Recipe, shapes: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(shapes / "data", tmp_path / "data"))
    job = Job(recipe_from({**detector_recipe, "data": {"source": str(data)}}), raw_run)
    before = job.task.data_digest(job.recipe.data)
    content = json.loads((data / "test" / FILE).read_text())
    content["annotations"][0]["bbox"][0] += 1
    (data / "test" / FILE).write_text(json.dumps(content))
    assert job.task.data_digest(job.recipe.data) != before


def test_every_size_has_the_precision_that_the_runtime_finds(
    decoded_run: Path, decoding_recipe: Recipe, shapes: Path, tmp_path: Path
) -> None:
    shutil.copytree(decoded_run, tmp_path / "run")
    decoding_recipe["export"] |= {"batches": [2], "sizes": [[96, 160]]}
    run(recipe_from(decoding_recipe), output=tmp_path / "run")
    images = from_coco(shapes / "data" / "test" / "annotations.json")
    for precision in ("fp32", "int8"):
        with Predictor(tmp_path / "run" / "bundle", "onnxruntime", precision, size=(96, 160)) as predictor:
            found = predictor.predict_batch([str(item) for item in images.items])
            (artifact,) = predictor.choice.artifacts
        assert artifact.inputs[0].shape == (2, 96, 160, 3)
        assert metrics(artifact) == pytest.approx(average_precision(images, found), abs=1e-3)
