"""The spine, end to end on a small recipe: what comes out, that a second run does nothing, what a kill costs."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from eightfold.cli.app import main
from eightfold.files import sha256_of_file
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.report.content import content_of
from eightfold.pipeline.report.headlines import best_curve
from eightfold.pipeline.run import run
from eightfold.recipe import recipe_from
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.predict.select_artifact import ArtifactRequest, select_artifact
from tests.pipeline.killing import run_killed_in, saved_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage. Its digests must hold there as well as where it was made."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def again(recipe: dict[str, Any], directory: Path) -> list[str]:
    """Run once more; the names of the steps that were not skipped."""
    result = run(recipe_from(recipe), output=directory)
    return [step.name for step in result.steps if not step.skipped]


def deterministic_digests(directory: Path) -> dict[str, str]:
    """SHA-256 of everything in the bundle that must come out the same: not times, engines, and what quotes them."""
    files = json.loads((directory / "bundle" / "manifest.json").read_text())["files"]
    stable = {name: entry["sha256"] for name, entry in files.items() if name.startswith("onnx/")}
    return stable | {name: files[name]["sha256"] for name in ("plan.json", "ranges.json")}


def test_the_bundle_holds_every_artifact_and_verifies(tiny_run: Path) -> None:
    bundle = Bundle.open(tiny_run / "bundle")
    bundle.verify()
    assert {artifact.id for artifact in bundle.manifest.artifacts} == {
        *(f"{curve}-b{batch}" for curve in ("baseline-fp32", "pruned-fp32") for batch in (1, 2)),
        *(f"pruned-int8-{target}-b{batch}" for target in ("cpu-x86", "rtx-sm86") for batch in (1, 2)),
        "pruned-fp16-rtx-sm86-b1-engine",
        "pruned-int8-rtx-sm86-b1-engine",
    }
    assert set(bundle.manifest.documents) == {"plan", "ranges", "latency", "report"}


def test_every_graph_has_a_measured_accuracy_and_recorded_steps(tiny_run: Path) -> None:
    for artifact in Bundle.open(tiny_run / "bundle").manifest.artifacts:
        if artifact.format == "onnx":
            assert [metric.images for metric in artifact.metrics] == [50]
            assert artifact.steps


def test_the_bundle_says_how_it_was_made(tiny_run: Path) -> None:
    manifest = Bundle.open(tiny_run / "bundle").manifest
    made = manifest.provenance
    assert made["seed"] == made["recipe"]["seed"] == 0
    assert {"eightfold", "torch", "onnx"} <= made["versions"].keys()
    for name, state in made["commits"].items():  # none where the tests run outside of a checkout
        assert name in ("eightfold", "project")
        assert len(state["commit"]) in (40, 64)
    assert made["earlier_commits"] == {}
    for artifact in manifest.artifacts:
        if artifact.format == "engine":
            assert "not compared with its graph" in artifact.steps[-1].notes[0]


def test_every_convolution_and_linear_width_is_a_multiple_of_8(tiny_run: Path) -> None:
    graph = onnx.load(tiny_run / "onnx" / "pruned-fp32-b1.onnx").graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights = [(node, shapes[node.input[1]]) for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(weights) == 17
    for node, (outputs, inputs, *_) in weights:
        assert outputs % 8 == 0 or outputs == 10, node.name
        assert inputs % 8 == 0 or inputs in (1, 3), node.name


def test_the_network_became_smaller(tiny_run: Path) -> None:
    before = json.loads((tiny_run / "baseline" / "facts.json").read_text())
    after = json.loads((tiny_run / "pruned.json").read_text())
    assert after["parameters"] < 0.75 * before["parameters"]
    assert after["macs"] < before["macs"]


def test_the_report_is_self_contained(tiny_run: Path) -> None:
    text = (tiny_run / "bundle" / "report.html").read_text()
    assert "<svg" in text
    assert "src=" not in text.replace("srcset", "")
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_a_second_run_does_nothing(copied: Path, tiny_recipe: dict[str, Any]) -> None:
    assert again(tiny_recipe, copied) == []


def test_scripts_get_the_result_as_json(
    copied: Path, tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a dry run, then of a run."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe))
    (copied / "report.html").unlink()
    told = []
    for words in (["--dry-run"], []):
        given = ["run", str(tmp_path / "tiny.yaml"), "--output", str(copied), "--json", str(tmp_path / "told"), *words]
        monkeypatch.setattr("sys.argv", ["eightfold", *given, "--allow-failed"])
        assert main() == 0
        told.append(json.loads((tmp_path / "told").read_text()))
    foreseen, done = told
    states = {step["name"]: step["state"] for step in foreseen["steps"]}
    assert {name for name, state in states.items() if state != "up to date"} == {"report", "bundle"}
    ran = {step["name"] for step in done["steps"] if not step["skipped"]}
    assert {name for name, state in states.items() if state == "would run"} == {"report"} <= ran <= {"report", "bundle"}
    assert done["bundle"] == str(copied / "bundle")
    assert {card["label"] for card in done["cards"]} >= {"Parameters", "File"}
    assert {"name", "passed", "seen"} <= done["checks"][0].keys()


def test_a_promise_that_does_not_hold_is_the_exit_code(
    copied: Path,
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However busy this machine is; the next thing to try is a key of the recipe."""
    monkeypatch.setattr(LatencyTable, "disturbance", lambda _: "")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe))
    given = ["eightfold", "run", str(tmp_path / "tiny.yaml"), "--output", str(copied), "--min-speedup", "1000"]
    for words, code in (([], 1), (["--allow-failed"], 0)):
        monkeypatch.setattr("sys.argv", [*given, *words])
        assert main() == code
        said = capsys.readouterr()
        assert "pruned-fp32 is 1000 times as fast: DOES NOT HOLD" in said.out
        assert ("lower compress.keep_ratio from 0.5" in said.err) is bool(code)
    allowed = {**tiny_recipe, "limits": {"min_speedup": 1000, "allow_failed": True}}
    assert run(recipe_from(allowed), output=copied).failed == ()


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_the_headline_is_about_what_a_predictor_runs(copied: Path, tiny_recipe: dict[str, Any], factor: float) -> None:
    """Whether INT8 is the faster or the slower one of the two."""
    path = copied / "latency.json"
    content = json.loads(path.read_text())
    for row in content["rows"]:
        if row["precision"] == "int8":
            row["start_p50_ms"] = [factor * each for each in row["start_p50_ms"]]
    path.write_text(json.dumps(content))
    manifest, table = Bundle.open(copied / "bundle").manifest, LatencyTable.load(path)
    picked = select_artifact(manifest.artifacts, manifest.preprocess, ["onnxruntime"], ArtifactRequest(), table)
    shown = content_of(Job(recipe_from(tiny_recipe), copied))
    best = best_curve(Job(recipe_from(tiny_recipe), copied), table)
    assert {f"{best}-b{batch}" for batch in picked.batches} == {each.id for each in picked.artifacts}
    assert best in {card.note for card in shown.cards}
    assert any("INT8 loses on this machine" in check.seen for check in shown.checks) is (factor > 1)


def test_the_headline_names_the_faster_backend(copied: Path, tiny_recipe: dict[str, Any]) -> None:
    """Every back end that is installed is measured; OpenVINO is twice as fast here."""
    path = copied / "latency.json"
    content = json.loads(path.read_text())
    others = copy.deepcopy(content["rows"])
    for row in others:
        row |= {"backend": "openvino", "name": f"{row['name']} openvino"}
        row["start_p50_ms"] = [each / 2 for each in row["start_p50_ms"]]
        row["speedup"] = row["speedup"] or {"value": 2, "low": 2, "high": 2}
    content["rows"] += others
    path.write_text(json.dumps(content))
    manifest, table = Bundle.open(copied / "bundle").manifest, LatencyTable.load(path)
    usable = ["onnxruntime", "openvino"]
    assert (
        select_artifact(manifest.artifacts, manifest.preprocess, usable, ArtifactRequest(), table).backend == "openvino"
    )
    job = Job(recipe_from(tiny_recipe), copied)
    shown, name = content_of(job), f"{best_curve(job, table)} openvino"
    # Behind it stands what the artifact gains beside the original there.
    assert name in {card.note.partition("; ")[0] for card in shown.cards}
    assert any(check.name == f"{name} is faster than the baseline" for check in shown.checks)
    assert not any(check.name.startswith("baseline") for check in shown.checks)


def test_a_deleted_artifact_is_made_again_alone_and_the_same(copied: Path, tiny_recipe: dict[str, Any]) -> None:
    before = deterministic_digests(copied)
    (copied / "onnx" / "pruned-fp32-b2.onnx").unlink()
    assert again(tiny_recipe, copied) == ["export pruned"]
    assert deterministic_digests(copied) == before


def test_a_deleted_bundle_file_is_put_back(copied: Path, tiny_recipe: dict[str, Any]) -> None:
    (copied / "bundle" / "plan.json").unlink()
    assert again(tiny_recipe, copied) == ["bundle"]
    Bundle.open(copied / "bundle").verify()


def test_a_changed_setting_redoes_only_what_depends_on_it(copied: Path, tiny_recipe: dict[str, Any]) -> None:
    steps = again({**tiny_recipe, "calibrate": {"images": 24}}, copied)
    assert steps[0] == "calibrate"
    assert not {"train", "prune", "finetune", "export baseline", "export pruned"} & set(steps)


def test_killed_at_several_stages_it_ends_with_the_same_digests(
    tiny_run: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe = saved_recipe(tmp_path, tiny_recipe)
    directory = tmp_path / "killed"
    places = {"train": 4, "finetune": 2, "export pruned": 9, "quantize cpu-x86": 6, "bundle": 12}
    for step, place in places.items():
        run_killed_in(step, recipe, directory, place=place)
    finished = run(recipe, output=directory)
    assert "train" in {step.name for step in finished.steps if step.skipped}
    assert deterministic_digests(directory) == deterministic_digests(tiny_run)
    assert names(directory) == names(tiny_run)


def names(directory: Path) -> list[str]:
    """Of all that a run keeps."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_int8_agrees_with_float(tiny_run: Path) -> None:
    """Not an accuracy claim (the tiny network is hardly trained): the graphs compute nearly the same function."""
    steps = json.loads((tiny_run / "onnx" / "int8-cpu-x86.json").read_text())
    assert min(step["cosine"] for each in steps.values() for step in each) > 0.9
    assert np.isfinite([step["max_abs_error"] for each in steps.values() for step in each]).all()
    for (step,) in steps.values():
        judged = [note.partition(":")[0] for note in step["notes"]]
        extremes = ["on zeros", "on ones", "on extremes", "on noise"]
        assert [name for name in judged if name in extremes] == extremes


def test_engines_are_plain_files_with_a_sidecar(tiny_run: Path) -> None:
    engine = tiny_run / "bundle" / "engines" / "pruned-int8-rtx-sm86-b1.engine"
    sidecar = json.loads(Path(f"{engine}.json").read_text())
    assert sidecar["engine_sha256"] == sha256_of_file(engine)
    assert sidecar["compute_capability"] == "8.6"


def test_the_ways_to_guard_accuracy_are_keys_of_the_recipe(tiny_recipe: dict[str, Any], copied: Path) -> None:
    wanted = {"targets": ["cpu-x86"], "equalize": True, "bias_correction": "analytic", "max_drop": 100.0, "form": "qdq"}
    changed = {key: value for key, value in tiny_recipe.items() if key != "engines"} | {"quantize": wanted}
    made = again(changed, copied)
    assert made[:3] == ["equalize", "calibrate", "quantize cpu-x86"]
    report = json.loads((copied / "onnx" / "equalized.json").read_text())
    assert report["groups"]
    assert "top-1 of FP32" in (copied / "onnx" / "search-cpu-x86.txt").read_text()
    artifacts = Bundle.open(copied / "bundle").manifest.artifacts
    ((*_, equalized, quantized),) = (each.steps for each in artifacts if each.id == "pruned-int8-cpu-x86-b1")
    assert "written as Q/DQ" in quantized.notes
    assert any("biases corrected, the most" in note for note in quantized.notes)
    assert equalized.name == "equalize"
    assert equalized.max_rel_error is not None
    assert equalized.max_rel_error < 1e-3
    assert equalized.notes[0].endswith("groups of layers equalized")
    assert again(changed, copied) == []
