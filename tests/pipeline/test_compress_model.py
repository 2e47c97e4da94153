"""`compress_model`: from an ONNX file, a module or a pruned folder and photographs to a bundle, and how it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import typer
import yaml
from torch import nn

import eightfold as ef
from eightfold.cli.pipeline.compress import compress
from eightfold.cli.pipeline.estimates import Estimates
from eightfold.pipeline.compress_model import CompressOptions, compress_model, recipe_for
from eightfold.pipeline.job.dry_run import StepPreview
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.runner import StepResult
from eightfold.pipeline.run import RunResult
from eightfold.pipeline.verdict_line import verdict_line
from eightfold.recipe import read_recipe
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.report.report_content import Check

cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
# Of so small a network INT8 is slower, which is no fault of it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::eightfold.export.int8.int8_speed.SlowInt8Warning"),
    # With random weights all classes are nearly as likely.
    pytest.mark.filterwarnings("ignore::eightfold.export.int8.quantize.LossyInt8Warning"),
]
SIDE = 32


def test_the_files_lie_where_run_puts_them(compressed: Path) -> None:
    for name in ("bundle/manifest.json", "bundle/onnx/pruned-fp32-b1.onnx", "report.html", "recipe.yaml"):
        assert (compressed / name).is_file(), name
    recipe = read_recipe(compressed / "recipe.yaml")
    assert recipe.model.source.endswith("net.onnx")
    assert recipe.compress.keep_ratio == 0.5


def test_the_graphs_keep_inputs_and_outputs_of_their_file(compressed: Path) -> None:
    for file in (compressed / "bundle" / "onnx").glob("*.onnx"):
        graph = onnx.load(file, load_external_data=False).graph
        assert [value.name for value in graph.input] == ["pixels"]
        assert [value.name for value in graph.output] == ["scores"]


def test_the_widths_cost_no_more_than_what_was_asked_for(compressed: Path) -> None:
    model = onnx.load(compressed / "bundle" / "onnx" / "pruned-fp32-b1.onnx")
    first, second = sorted(tuple(each.dims) for each in model.graph.initializer if len(each.dims) == 4)
    assert first[0] % 8 == second[0] % 8 == 0
    assert first[0] == second[1]
    # Measured errors decide on each width, at no more multiply-accumulates than half of every width has.
    assert first[0] * 3 + second[0] * second[1] <= 8 * 3 + 16 * 8


def test_agreement_is_measured_against_the_original(compressed: Path) -> None:
    """By onnxruntime on both files, without our decoders."""
    import onnxruntime as ort

    metrics = json.loads((compressed / "metrics.json").read_text())
    runs = {
        name: ort.InferenceSession(compressed / "bundle" / "onnx" / f"{name}-fp32-b1.onnx")
        for name in ("baseline", "pruned")
    }
    files = sorted((compressed / "data" / "test" / "images").iterdir())
    images = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    rows = [image.transpose(2, 0, 1)[None].astype(np.float32) / 255 for image in images]
    found = {name: [int(np.argmax(run.run(None, {"pixels": row})[0])) for row in rows] for name, run in runs.items()}
    equal = np.mean([a == b for a, b in zip(found["baseline"], found["pruned"], strict=True)])
    assert metrics["pruned-fp32-b1"][0] == {
        "name": "agreement-top1",
        "value": equal,
        "images": len(files),
        "data": metrics["pruned-fp32-b1"][0]["data"],
    }
    assert metrics["baseline-fp32-b1"][0]["value"] == 1.0


def test_the_layers_in_float_are_chosen_on_calibration_images(compressed: Path) -> None:
    table = (compressed / "onnx" / "search-cpu-x86.txt").read_text()
    assert table.startswith("agreement-top1 of FP32: 100.00 %; allowed drop 25")
    assert read_recipe(compressed / "recipe.yaml").quantize.most_float == 0.25


def test_the_recipe_does_the_same(compressed: Path) -> None:
    """Every step of a run on it is up to date."""
    steps = ef.preview_run(compressed / "recipe.yaml", output=compressed)
    assert {step.state for step in steps} == {"up to date"}


def test_the_command_again_does_nothing_and_says_the_verdict(
    compressed: Path, compress_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(
        str(compress_inputs / "net.onnx"),
        str(compress_inputs / "photos"),
        compressed,
        keep=0.5,
        min_speedup=0.01,
        max_drop=100,
        force=True,
        minutes=0,
        seconds=0.01,
        json=compress_inputs / "result.json",
    )
    told = capsys.readouterr().out
    assert "Nothing to do: every step is up to date." in told
    result = json.loads((compress_inputs / "result.json").read_text())
    assert result["verdict"] in told
    assert result["verdict"].startswith(("good:", "not shown:"))
    assert f"again   eightfold run {compressed / 'recipe.yaml'}" in told


def test_a_bad_result_is_kept_and_exits_with_1(
    compressed: Path, compress_inputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is ten thousand times as fast, on a machine without other work."""
    monkeypatch.setattr(LatencyTable, "disturbance", lambda _: "")
    arguments = (str(compress_inputs / "net.onnx"), str(compress_inputs / "photos"), compressed)
    with pytest.raises(typer.Exit) as stop:
        compress(*arguments, keep=0.5, min_speedup=1e4, max_drop=100, minutes=0, seconds=0.01)
    told = capsys.readouterr()
    assert stop.value.exit_code == 1
    assert "\nbad: " in told.out
    assert "the result is bad" in told.err
    assert (compressed / "bundle" / "manifest.json").is_file()
    compress(*arguments, keep=0.5, min_speedup=1e4, max_drop=100, minutes=0, seconds=0.01, force=True)


@pytest.mark.parametrize(
    ("over", "words"), [(True, "bad: .*; INT8: probably not, 9%"), (False, "not shown: .*; INT8: 9%")]
)
def test_an_estimate_over_the_limit_is_no_proof(
    compressed: Path, monkeypatch: pytest.MonkeyPatch, over: bool, words: str
) -> None:
    """The first line says no more than the list of checks below it, which calls such a promise not shown."""
    check = Check(name="INT8", passed=None, seen="9%", wanted="10%", over_limit=over)
    monkeypatch.setattr(RunResult, "checks", (check,))
    job = Job(read_recipe(compressed / "recipe.yaml"), compressed)
    line = verdict_line(RunResult(compressed / "bundle", compressed / "report.html", job, ()))
    assert re.fullmatch(words, line)


def test_a_dry_run_writes_nothing(compress_inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compress(str(compress_inputs / "net.onnx"), str(compress_inputs / "photos"), compress_inputs / "dry", dry_run=True)
    assert "prune: would run (not done yet)" in capsys.readouterr().out
    assert not (compress_inputs / "dry").exists()


def test_the_recipe_of_a_detector_reads_what_ultralytics_exports(tmp_path: Path, compress_inputs: Path) -> None:
    """Its head is (1, 4 + classes, cells at strides 8, 16 and 32); names and the letterbox are known."""
    value = onnx.helper.make_tensor_value_info
    cells = 8 * 8 + 4 * 4 + 2 * 2
    node = onnx.helper.make_node("Identity", ["images"], ["output0"])
    graph = onnx.helper.make_graph(
        [node], "g", [value("images", 1, [1, 3, 64, 64])], [value("output0", 1, [1, 6, cells])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.metadata_props.add(key="names", value="{0: 'cat', 1: 'dog'}")
    onnx.save(model, tmp_path / "yolo.onnx")
    recipe = recipe_for(str(tmp_path / "yolo.onnx"), str(compress_inputs / "photos"), "out", CompressOptions())
    assert (recipe.task.kind, recipe.task.decode, recipe.task.labels) == ("detect", "yolo-boxes", ("cat", "dog"))
    assert recipe.preprocess.resize == "letterbox"
    assert yaml.safe_load(recipe.model_dump_json())["model"]["source"].endswith("yolo.onnx")


def test_a_function_with_labels(compress_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelled test images of two classes; the metric is top-1."""
    for label in range(2):
        folder = tmp_path / "labelled" / str(label)
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "0.png"), np.full((SIDE, SIDE, 3), 200 * label, np.uint8))
    (tmp_path / "two_classes.py").write_text(
        "import torch\nfrom torch import nn\ndef net(num_classes):\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, num_classes, 1),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = CompressOptions(
        labelled=str(tmp_path / "labelled"), size=(SIDE, SIDE), batches=(1,), minutes=0, seconds=0.01
    )
    result = compress_model("two_classes:net", compress_inputs / "photos", tmp_path / "out", options=options)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {each["name"] for found in metrics.values() for each in found} == {"top1"}
    assert verdict_line(result)


def small(multiple: int = 8) -> nn.Module:
    """Every layer is as narrow as the multiple."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, multiple, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(multiple, 10))


def test_a_small_network_is_said_to_be(
    compress_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "small.onnx", tmp_path / "out"
    ef.export_onnx(small(), path, batch=1, image_size=SIDE)
    photos = str(compress_inputs / "photos")
    compress(str(path), photos, out, minutes=0, max_drop=100, force=True, seconds=0.01)
    told = capsys.readouterr().out
    assert "prune: nothing to prune, " in told
    assert ": the network is small already, nothing was pruned (groups of up to 8 channels stay whole" in told
    assert (out / "bundle" / "manifest.json").is_file()


def test_recovery_is_on_where_anything_is_pruned(compress_inputs: Path) -> None:
    files = str(compress_inputs / "net.onnx"), str(compress_inputs / "photos"), "out"
    for options, minutes in (({}, 20.0), ({"keep": 1.0}, 0.0), ({"minutes": 0.0}, 0.0), ({"minutes": 3.0}, 3.0)):
        recipe = recipe_for(*files, CompressOptions(**options))  # type: ignore[arg-type]  # of a table
        assert recipe.compress.recover_minutes == minutes


def test_engines_of_several_targets_in_one_run_that_recovers(compress_inputs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the extra [rtx] is not installed")
    options = CompressOptions(
        targets=("cpu-x86", "rtx:sm86", "rtx:sm89"), minutes=0.05, max_drop=100, batches=(1,), seconds=0.01
    )
    result = compress_model(compress_inputs / "net.onnx", compress_inputs / "photos", tmp_path / "out", options=options)
    assert "recover" in [step.name for step in result.steps]
    assert (tmp_path / "out" / "recover.csv").is_file()
    targets = [artifact.target for artifact in ef.Bundle.open(result.bundle).manifest.artifacts]
    assert targets.count("rtx:sm86") == targets.count("rtx:sm89") == 3  # a Q/DQ graph, an engine of each precision
    written = read_recipe(tmp_path / "out" / "recipe.yaml")
    assert written.engines is not None
    assert written.engines.targets == ("rtx:sm86", "rtx:sm89")


@pytest.mark.parametrize(("stem", "name"), [("my net (1)", "my-net-1"), ("größe", "gr-e"), ("图", "network")])
def test_files_of_any_name_are_taken(compress_inputs: Path, tmp_path: Path, stem: str, name: str) -> None:
    shutil.copy(compress_inputs / "net.onnx", tmp_path / f"{stem}.onnx")
    recipe = recipe_for(str(tmp_path / f"{stem}.onnx"), str(compress_inputs / "photos"), "out", CompressOptions())
    assert recipe.name == name


def test_estimates_shrink_to_nothing() -> None:
    now = [0.0]
    steps = [StepPreview(name, "would run") for name in ("data", "compensate", "export pruned")]
    estimates = Estimates(steps, clock=lambda: now[0])
    assert estimates.remaining() == ""
    now[0] = 130.0
    estimates.show(StepResult("data", False, 10.0, "x"))
    estimates.show(StepResult("compensate", False, 120.0, "x"))
    assert estimates.remaining() == " about 50 s left"  # 13 of 18 shares took 130 s
    estimates.show(StepResult("export pruned", False, 1.0, "x"))
    assert estimates.remaining() == " about 0 s left"


def test_estimates_count_the_minutes_of_recovery_apart() -> None:
    now = [0.0]
    steps = [StepPreview(name, "would run") for name in ("compensate", "recover")]
    estimates = Estimates(steps, {"recover": 600.0}, clock=lambda: now[0])
    now[0] = 60.0
    estimates.show(StepResult("compensate", False, 60.0, "x"))
    assert estimates.remaining() == " about 11 min left"  # as long again for the rest of the step, and its limit


def test_measuring_layers_says_nothing_of_the_other_steps() -> None:
    now = [0.0]
    steps = [StepPreview(name, "would run") for name in ("data", "prune", "compensate", "export pruned")]
    estimates = Estimates(steps, apart=("prune",), clock=lambda: now[0])
    now[0] = 10.0
    estimates.show(StepResult("data", False, 10.0, "x"))
    assert estimates.remaining() == ""  # nobody knows how long the measurement takes
    now[0] = 910.0
    estimates.show(StepResult("prune", False, 900.0, "x"))
    now[0] = 1030.0
    estimates.show(StepResult("compensate", False, 120.0, "x"))
    assert estimates.remaining() == " about 50 s left"  # 13 of 18 shares took 130 s
