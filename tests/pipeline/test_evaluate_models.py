"""`evaluate` against counts by hand and scipy; a lone ONNX file predicts; classes are chosen; bundles are packed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import eightfold as ef
from eightfold.cli.pipeline.evaluate import evaluate as command
from eightfold.cli.runtime.pack import pack
from eightfold.cli.runtime.predict import predict
from eightfold.errors import ImageError, ModelError, UnknownNameError, UsageError
from eightfold.pipeline.evaluate_models import EvaluateOptions
from eightfold.runtime.bundle.guess_task import guess_task
from eightfold.tasks.paired import bootstrap, mcnemar

cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
SIDE = 8
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def write_graph(path: Path, nodes: list[onnx.NodeProto], output: list[int], **weights: np.ndarray) -> Path:
    """A graph of one RGB image."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", [1, 3, SIDE, SIDE]), ("out", output))
    ]
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def colour_classifier(path: Path, mixed: np.ndarray) -> Path:
    """Scores are the means of the channels, mixed by a matrix."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "mixed"], ["out"]),
    ]
    return write_graph(path, nodes, [1, 3], mixed=mixed.astype(np.float32))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images of each colour; right.onnx knows all, wrong.onnx takes blue for green."""
    monkeypatch.chdir(tmp_path)
    for name, colour in COLOURS.items():
        folder = tmp_path / "data" / {"red": "0", "green": "1", "blue": "2"}[name]
        folder.mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(folder / f"{number}.png"), np.full((SIDE, SIDE, 3), colour[::-1], np.uint8))
    colour_classifier(tmp_path / "right.onnx", np.eye(3))
    colour_classifier(tmp_path / "wrong.onnx", np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0.5]]))
    return tmp_path


def test_a_classifier_by_class_with_its_confusion(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("wrong.onnx", "data", json=place / "m.json")
    told = json.loads((place / "m.json").read_text())["results"]["wrong.onnx"]
    assert told["metrics"] == {"top-1": pytest.approx(6 / 9), "top-5": 1.0}
    assert told["by_class"]["2"] == {"top-1": 0.0, "top-5": 1.0}
    assert told["confusion"] == {"0": {"0": 3}, "1": {"1": 3}, "2": {"1": 3}}
    assert "2 for 1: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ({"1": "1", "2": "2"}, ""),  # a part of the classes, by their numbers
        ({"0": "dahlia", "1": "iris", "2": "rose"}, ""),  # in the order of the names
        ({"0": "dahlia", "2": "rose"}, r"data has 2 classes and the network 3; allowed: folders named by"),
        ({"0": "0", "1": "1", "2": "3"}, ""),
        ({"1": "1", "2": "3"}, r"data has 2 classes and the network 3"),
    ],
)
def test_folders_are_classes_by_number_or_in_full(place: Path, folders: dict[str, str], words: str) -> None:
    """The network knows every colour: less than 100% is a class taken for another."""
    for old in ("0", "1", "2"):
        (place / "data" / old).rename(place / old)
    for old, new in folders.items():
        (place / old).rename(place / "data" / new)
    if words:
        with pytest.raises(ImageError, match=words):
            ef.evaluate("right.onnx", data="data")
    else:
        assert ef.evaluate("right.onnx", data="data").results["right.onnx"].metrics["top-1"] == 1.0


def test_a_file_of_any_batch_and_size_gives_what_the_fixed_one_gives(place: Path) -> None:
    model = onnx.load("wrong.onnx")
    for axis, name in enumerate(("batch", "", "height", "width")):
        if name:
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, "any.onnx")
    found = ef.evaluate("any.onnx", "wrong.onnx", data="data", options=EvaluateOptions(size=(SIDE, SIDE))).results
    assert found["any.onnx"].metrics == found["wrong.onnx"].metrics
    with pytest.raises(UsageError, match="fixed at 8x8"):
        ef.evaluate("wrong.onnx", data="data", options=EvaluateOptions(size=(16, 16)))


def test_two_classifiers_with_mcnemars_test(place: Path) -> None:
    """Three images on which the first alone is right: p = 2 / 2^3, as the binomial distribution has it."""
    found = ef.evaluate("right.onnx", "wrong.onnx", data="data").paired
    assert found is not None
    assert (found.only_first, found.only_second, found.p_value) == (3, 0, 0.25)
    assert found.difference == pytest.approx(-3 / 9)


def test_mcnemar_as_scipy_has_it() -> None:
    from scipy.stats import binomtest

    random = np.random.default_rng(0)
    first, second = random.random(60) < 0.8, random.random(60) < 0.6
    left, right = int((first & ~second).sum()), int((second & ~first).sum())
    expected = binomtest(left, left + right, 0.5).pvalue
    assert mcnemar("m", first.tolist(), second.tolist()).p_value == pytest.approx(expected)


def test_a_bootstrap_of_a_clear_and_of_no_difference() -> None:
    change = np.full(40, 0.1)
    clear = bootstrap("m", 40, lambda places: float(change[places].mean()))
    assert clear.low == clear.high == pytest.approx(0.1)
    assert clear.p_value < 0.02
    change = np.tile([0.1, -0.1], 20)
    none = bootstrap("m", 40, lambda places: float(change[places].mean()))
    assert none.low is not None
    assert none.low < 0 < (none.high or 0)
    assert none.p_value > 0.2


def test_a_part_of_a_detectors_classes_is_found_by_number_or_refused(place: Path) -> None:
    """A graph that always finds an object of class 7, perfectly. It names no classes."""
    pytest.importorskip("faster_coco_eval", reason="the extra [coco] is not installed")
    rows = np.array([[[0, 0, 4, 4, 0.9, 7]]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["out"]),
    ]
    write_graph(place / "yolo.onnx", nodes, [1, 1, 6], rows=rows, zero=np.zeros((), np.float32))
    coco = {
        "images": [{"id": 1, "file_name": "data/0/0.png"}],
        "categories": [{"id": 1, "name": "7"}, {"id": 2, "name": "3"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0, "id": 1}],
    }
    (place / "coco.json").write_text(json.dumps(coco))
    results = ef.evaluate("yolo.onnx", data="coco.json").results["yolo.onnx"]
    assert results.metrics == {"mAP50-95": pytest.approx(1.0), "mAP50": pytest.approx(1.0)}
    assert list(results.by_class) == ["7"]
    coco["categories"][0]["name"] = "cat"
    (place / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(
        ImageError, match=r"coco\.json has 2 classes and the network 8 or more; .*--task FILE\.json with labels"
    ):
        ef.evaluate("yolo.onnx", data="coco.json")
    (place / "coco.json").write_text(json.dumps(coco | {"annotations": []}))
    with pytest.raises(ImageError, match=r"coco\.json have no boxes"):
        ef.evaluate("yolo.onnx", data="coco.json")


def test_detections_by_class_and_of_chosen_classes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A graph that always finds a cat where one is and a dog where none is."""
    pytest.importorskip("faster_coco_eval", reason="the extra [coco] is not installed")
    rows = np.array([[[0, 0, 4, 4, 0.9, 0], [4, 4, 8, 8, 0.8, 1]]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["out"]),
    ]
    write_graph(place / "yolo.onnx", nodes, [1, 2, 6], rows=rows, zero=np.zeros((), np.float32))
    model = onnx.load(place / "yolo.onnx")
    model.metadata_props.add(key="names", value="{0: 'cat', 1: 'dog'}")
    onnx.save(model, place / "yolo.onnx")
    coco = {
        "images": [{"id": 1, "file_name": "data/0/0.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0, "id": 1},
            {"image_id": 1, "category_id": 2, "bbox": [0, 4, 4, 4], "area": 16, "iscrowd": 0, "id": 2},
        ],
    }
    (place / "coco.json").write_text(json.dumps(coco))
    results = ef.evaluate("yolo.onnx", data="coco.json").results["yolo.onnx"]
    assert results.metrics == {"mAP50-95": pytest.approx(0.5), "mAP50": pytest.approx(0.5)}
    assert results.by_class["cat"]["mAP50"] == pytest.approx(1.0)
    assert results.by_class["dog"]["mAP50"] == 0.0
    predict(Path("yolo.onnx"), ["data/0/0.png"], only=["dog"])
    assert "1 dog" in capsys.readouterr().out
    with ef.Predictor("yolo.onnx", classes=["cat"]) as predictor:
        assert predictor.predict("data/0/0.png").labels == ("cat",)
    with pytest.raises(UnknownNameError, match=r"unknown class 'cow'.*allowed: cat, dog"):
        ef.Predictor("yolo.onnx", classes=["cow"])


def test_maps_and_mattes(place: Path) -> None:
    """Green pixels are class 1. Half of each mask says so; the other half is unknown or class 0."""
    for part in ("images", "masks", "alphas"):
        (place / "maps" / part).mkdir(parents=True)
    cv2.imwrite("maps/images/a.png", np.full((SIDE, SIDE, 3), (0, 255, 0), np.uint8))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:4], mask[4:6] = 1, 255
    cv2.imwrite("maps/masks/a.png", mask)
    cv2.imwrite("maps/alphas/a.png", np.full((SIDE, SIDE), 51, np.uint8))
    write_graph(place / "maps.onnx", [helper.make_node("Identity", ["images"], ["out"])], [1, 3, SIDE, SIDE])
    found = ef.evaluate("maps.onnx", data="maps").results["maps.onnx"]
    assert found.by_class["1"]["IoU"] == pytest.approx(4 / 6)  # of six known rows, all seen as 1, four are
    assert found.metrics["mIoU"] == pytest.approx(2 / 6)
    nodes = [helper.make_node("ReduceMean", ["images"], ["out"], axes=[1], keepdims=1)]
    write_graph(place / "matte.onnx", nodes, [1, 1, SIDE, SIDE])
    from eightfold.cli.options import task_named

    options = ef.EvaluateOptions(task=task_named("matte"))
    metrics = ef.evaluate("matte.onnx", data="maps", options=options).results["matte.onnx"].metrics
    assert metrics["MAD"] == pytest.approx(1 / 3 - 0.2, abs=1e-6)
    assert metrics["SAD"] == pytest.approx((1 / 3 - 0.2) * SIDE * SIDE / 1000, abs=1e-6)


def test_a_lone_file_predicts(place: Path) -> None:
    with ef.Predictor(place / "right.onnx") as predictor:
        assert predictor.predict("data/2/0.png").index == 2
    assert guess_task([(1, 84, 2100)], (320, 320)).decode == "yolo-boxes"
    assert guess_task([(1, 2100, 84)], (320, 320)).options == {"channels_last": True}
    assert guess_task([(1, 8), (1, 8)], (320, 320)).kind == "tensors"
    with pytest.raises(ModelError, match=r"no ONNX file absent\.onnx"):
        ef.Predictor("absent.onnx")


def test_a_file_of_any_size_predicts_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load("right.onnx")
    for axis in (0, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"any{axis}"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "any0"
    onnx.save(model, "any.onnx")
    predict(Path("any.onnx"), ["data/1/0.png"], size="16x24")
    assert capsys.readouterr().out.startswith("data/1/0.png: 1 ")  # green


def test_what_cannot_be_measured_is_one_line(place: Path) -> None:
    write_graph(place / "raw.onnx", [helper.make_node("Flatten", ["images"], ["f"])], [1, 3 * SIDE * SIDE])
    with pytest.raises(UsageError, match=r"right\.onnx twice"):
        ef.evaluate("right.onnx", "right.onnx", data="data")
    with pytest.raises(ImageError, match="have no labels"):
        ef.evaluate("right.onnx", data="data/0")
    with pytest.raises(UsageError, match=r"classes cat of the task classify"):
        ef.Predictor("right.onnx", classes=["cat"])


def test_a_run_is_packed_into_one_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.export.bundle.export_bundle import export_bundle

    rules = Preprocess(height=SIDE, width=SIDE)
    export_bundle(place / "right.onnx", place / "run" / "bundle", preprocess=rules, task=guess_task([(1, 3)], (8, 8)))
    pack(Path("run"))
    assert "wrote right.eightfold" in capsys.readouterr().out
    with ef.Predictor("right.eightfold") as predictor:
        assert predictor.predict("data/1/0.png").index == 1
    table = ef.evaluate("right.eightfold", "run/bundle:right-b1", data="data")
    assert [result.metrics["top-1"] for result in table.results.values()] == [1.0, 1.0]
    with pytest.raises(UsageError, match=r"a file ending in \.eightfold"):
        pack(Path("run"), Path("x.zip"))
