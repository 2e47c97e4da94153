"""`compress_model`: from an ONNX file, a module or a pruned folder and photographs to a bundle, and how it refuses."""

from __future__ import annotations

import json
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
from eightfold.errors import EightfoldError
from eightfold.pipeline.compress_model import CompressOptions, compress_model, preview_compress, recipe_for
from eightfold.pipeline.job.dry_run import StepPreview
from eightfold.pipeline.job.runner import StepResult
from eightfold.pipeline.verdict_line import verdict_line
from eightfold.recipe import read_recipe
from eightfold.runtime.bench.latency import LatencyTable

cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
# Of so small a network INT8 is slower, which is no fault of it.
pytestmark = pytest.mark.filterwarnings("ignore::eightfold.export.int8.int8_speed.SlowInt8Warning")
SIDE = 32


def classifier() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.onnx and 12 photographs."""
    folder = tmp_path_factory.mktemp("front")
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), random.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    ef.export_onnx(classifier(), folder / "net.onnx", batch=1, image_size=SIDE)
    model = onnx.load(folder / "net.onnx")
    onnx.save(_renamed(model, {"images": "pixels", "logits": "scores"}), folder / "net.onnx")
    return folder


def _renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        for held in (node.input, node.output):
            for at, name in enumerate(held):
                held[at] = names.get(name, name)
    return model


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    """The run directory of `eightfold compress net.onnx`, made once."""
    out = place / "out"
    compress(
        str(place / "net.onnx"),
        str(place / "photos"),
        out,
        keep=0.5,
        min_speedup=0.01,
        max_drop=100,
        force=True,
        seconds=0.05,
    )
    return out


def test_the_files_lie_where_run_puts_them(done: Path) -> None:
    for name in ("bundle/manifest.json", "bundle/onnx/pruned-fp32-b1.onnx", "report.html", "recipe.yaml"):
        assert (done / name).is_file(), name
    recipe = read_recipe(done / "recipe.yaml")
    assert recipe.model.source.endswith("net.onnx")
    assert recipe.compress.keep_ratio == 0.5


def test_the_graphs_keep_inputs_and_outputs_of_their_file(done: Path) -> None:
    for file in (done / "bundle" / "onnx").glob("*.onnx"):
        graph = onnx.load(file, load_external_data=False).graph
        assert [value.name for value in graph.input] == ["pixels"]
        assert [value.name for value in graph.output] == ["scores"]


def test_the_widths_cost_no_more_than_what_was_asked_for(done: Path) -> None:
    model = onnx.load(done / "bundle" / "onnx" / "pruned-fp32-b1.onnx")
    first, second = sorted(tuple(each.dims) for each in model.graph.initializer if len(each.dims) == 4)
    assert first[0] % 8 == second[0] % 8 == 0
    assert first[0] == second[1]
    # Measured errors decide on each width, at no more multiply-accumulates than half of every width has.
    assert first[0] * 3 + second[0] * second[1] <= 8 * 3 + 16 * 8


def test_agreement_is_measured_against_the_original(done: Path) -> None:
    """By onnxruntime on both files, without our decoders."""
    import onnxruntime as ort

    metrics = json.loads((done / "metrics.json").read_text())
    runs = {
        name: ort.InferenceSession(done / "bundle" / "onnx" / f"{name}-fp32-b1.onnx") for name in ("baseline", "pruned")
    }
    files = sorted((done / "data" / "test" / "images").iterdir())
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


def test_the_recipe_does_the_same(done: Path) -> None:
    """Every step of a run on it is up to date."""
    steps = ef.preview_run(done / "recipe.yaml", output=done)
    assert {step.state for step in steps} == {"up to date"}


def test_the_command_again_does_nothing_and_says_the_verdict(
    done: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(
        str(place / "net.onnx"),
        str(place / "photos"),
        done,
        keep=0.5,
        min_speedup=0.01,
        max_drop=100,
        force=True,
        seconds=0.05,
        json=place / "result.json",
    )
    told = capsys.readouterr().out
    assert "Nothing to do: every step is up to date." in told
    result = json.loads((place / "result.json").read_text())
    assert result["verdict"] in told
    assert result["verdict"].startswith(("good:", "not shown:"))
    assert f"again   eightfold run {done / 'recipe.yaml'}" in told


def test_a_bad_result_is_kept_and_exits_with_1(
    done: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is ten thousand times as fast, on a machine without other work."""
    monkeypatch.setattr(LatencyTable, "disturbance", lambda _: "")
    arguments = (str(place / "net.onnx"), str(place / "photos"), done)
    with pytest.raises(typer.Exit) as stop:
        compress(*arguments, keep=0.5, min_speedup=1e4, max_drop=100, seconds=0.05)
    told = capsys.readouterr()
    assert stop.value.exit_code == 1
    assert "\nbad: " in told.out
    assert "the result is bad" in told.err
    assert (done / "bundle" / "manifest.json").is_file()
    compress(*arguments, keep=0.5, min_speedup=1e4, max_drop=100, seconds=0.05, force=True)


def test_a_dry_run_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compress(str(place / "net.onnx"), str(place / "photos"), place / "dry", dry_run=True)
    assert "prune: would run (not done yet)" in capsys.readouterr().out
    assert not (place / "dry").exists()


@pytest.mark.parametrize(
    ("model", "images", "options", "words"),
    [
        ("resnet18", "photos", {}, "resnet18 has random weights; allowed: trained weights"),
        ("net.onnx", "nowhere", {}, "nowhere does not exist"),
        ("net.onnx", "photos", {"targets": ("cpu-x68",)}, "unknown target 'cpu-x68'.*did you mean 'cpu-x86'"),
        ("net.onnx", "photos", {"targets": ("rtx:sm86", "tensorrt:10.3")}, "engines for rtx:sm86 and tensorrt:10.3"),
        ("absent.onnx", "photos", {}, r"no ONNX file absent\.onnx"),
        ("two.onnx", "photos", {}, r"two\.onnx has 2 inputs"),
        ("vector.onnx", "photos", {}, r"input 'x' of vector\.onnx is float32 with 2 axes"),
        (
            "fasterrcnn_resnet50_fpn",
            "photos",
            {"weights": Path("net.onnx")},
            "is not a plain state dict|cannot be exported",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    place: Path, model: str, images: str, options: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    _odd_files()
    with pytest.raises(EightfoldError, match=words) as caught:
        preview_compress(model, images, "bad", options=CompressOptions(**options))  # type: ignore[arg-type]  # of a table
    assert "\n" not in str(caught.value)
    assert not Path("bad").exists()


def _odd_files() -> None:
    value = onnx.helper.make_tensor_value_info
    image, vector = ("images", 1, [1, 3, 8, 8]), ("x", 1, [1, 8])
    for name, inputs in (("two", [image, ("second", 1, [1, 3, 8, 8])]), ("vector", [vector])):
        nodes = [onnx.helper.make_node("Sum", [each[0] for each in inputs], ["y"])]
        graph = onnx.helper.make_graph(nodes, "g", [value(*each) for each in inputs], [value("y", 1, None)])
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), f"{name}.onnx")


def test_the_recipe_of_a_detector_reads_what_ultralytics_exports(tmp_path: Path, place: Path) -> None:
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
    recipe = recipe_for(str(tmp_path / "yolo.onnx"), str(place / "photos"), "out", CompressOptions())
    assert (recipe.task.kind, recipe.task.decode, recipe.task.labels) == ("detect", "yolo-boxes", ("cat", "dog"))
    assert recipe.preprocess.resize == "letterbox"
    assert yaml.safe_load(recipe.model_dump_json())["model"]["source"].endswith("yolo.onnx")


# The classes of random weights lie so close that INT8 may swap them, as it does on CPUs without VNNI.
@pytest.mark.filterwarnings("ignore::eightfold.export.int8.quantize.LossyInt8Warning")
def test_a_function_with_labels(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    options = CompressOptions(labelled=str(tmp_path / "labelled"), size=(SIDE, SIDE), batches=(1,), seconds=0.05)
    result = compress_model("two_classes:net", place / "photos", tmp_path / "out", options=options)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {each["name"] for found in metrics.values() for each in found} == {"top1"}
    assert verdict_line(result)


def test_estimates_shrink_to_nothing() -> None:
    now = [0.0]
    steps = [StepPreview(name, "would run") for name in ("data", "compensate", "export pruned")]
    estimates = Estimates(steps, lambda: now[0])
    assert estimates.remaining() == ""
    now[0] = 130.0
    estimates.show(StepResult("data", False, 10.0, "x"))
    estimates.show(StepResult("compensate", False, 120.0, "x"))
    assert estimates.remaining() == " about 50 s left"  # 13 of 18 shares took 130 s
    estimates.show(StepResult("export pruned", False, 1.0, "x"))
    assert estimates.remaining() == " about 0 s left"
