"""What `eightfold compress` refuses: one line each, nothing written, nothing lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import eightfold as ef
from eightfold.errors import EightfoldError, UsageError
from eightfold.pipeline.compress_model import CompressOptions, compress_model, preview_compress, recipe_for

cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
SIDE = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, damaged ones, a good network and odd ones."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("photos", "damaged", "empty", "labels/only"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(8):
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), random.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
        (folder / "damaged" / f"{number}.png").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "labels" / "only" / "0.png"), random.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    ef.export_onnx(nn.Sequential(*layers), folder / "net.onnx", batch=1, image_size=SIDE)
    (folder / "vit").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "vit" / name).write_text("{}")
    for name, write in ODD.items():
        onnx.save(write(), folder / f"{name}.onnx")
    (folder / "broken.onnx").write_bytes(b"nonsense")
    return folder


def graph_of(nodes: list[onnx.NodeProto], inputs: list[tuple[str, int, list[int]]]) -> onnx.ModelProto:
    value, weight = helper.make_tensor_value_info, np.ones((8, 3, 1, 1), np.float32)
    made = helper.make_graph(
        nodes,
        "g",
        [value(*each) for each in inputs],
        [value("y", 1, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(0.1, np.float32), "scale")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def half_graph() -> onnx.ModelProto:
    """Its input and output are float32."""
    nodes = [
        make("Cast", ["images"], ["in"], to=10),
        make("Conv", ["in", "h"], ["out"], "conv"),
        make("Cast", ["out"], ["y"], to=1),
    ]
    model = graph_of(nodes, [IMAGE])
    model.graph.initializer.append(numpy_helper.from_array(np.ones((16, 3, 3, 3), np.float16), "h"))
    return model


IMAGE = ("images", 1, [1, 3, SIDE, SIDE])
make = helper.make_node
ODD: dict[str, Callable[[], onnx.ModelProto]] = {
    "two": lambda: graph_of([make("Sum", ["images", "second"], ["y"])], [IMAGE, ("second", 1, [1, 3, SIDE, SIDE])]),
    "vector": lambda: graph_of([make("Relu", ["x"], ["y"])], [("x", 1, [1, 8])]),
    "strange": lambda: graph_of([make("Fancy", ["images"], ["y"], "odd", domain="vendor")], [IMAGE]),
    "half": half_graph,
    "quantized": lambda: graph_of([make("QuantizeLinear", ["images", "scale"], ["y"], "q")], [IMAGE]),
}
FILES = ("net.onnx", "photos")


@pytest.mark.parametrize(
    ("model", "images", "options", "words"),
    [
        ("resnet18", "photos", {}, "resnet18 has random weights; allowed: trained weights"),
        ("net.onnx", "nowhere", {}, "nowhere does not exist"),
        ("net.onnx", "empty", {}, "no images in empty; allowed: files ending in"),
        ("net.onnx", "photos", {"targets": ("cpu-x68",)}, "unknown target 'cpu-x68'.*did you mean 'cpu-x86'"),
        ("absent.onnx", "photos", {}, r"no ONNX file absent\.onnx"),
        ("broken.onnx", "photos", {}, r"cannot read broken\.onnx as ONNX"),
        ("two.onnx", "photos", {}, r"two\.onnx has 2 inputs"),
        ("vector.onnx", "photos", {}, r"input 'x' of vector\.onnx is float32 with 2 axes"),
        ("strange.onnx", "photos", {}, r"the operator vendor\.Fancy of node 'odd' cannot run in torch.*cut the graph"),
        ("quantized.onnx", "photos", {}, r"already quantized \(1 nodes.*prune the float graph"),
        ("half.onnx", "photos", {}, r"half\.onnx computes 'conv' \(Conv\) in float16; allowed: a float32 graph"),
        ("net.onnx", "photos", {"labelled": "nowhere"}, "nowhere"),
        ("net.onnx", "photos", {"labelled": "empty"}, "empty"),
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
    with pytest.raises(EightfoldError, match=words) as caught:
        preview_compress(model, images, "bad", options=CompressOptions(**options))  # type: ignore[arg-type]  # of a table
    assert "\n" not in str(caught.value)
    assert not Path("bad").exists()


def test_images_of_which_none_can_be_read(place: Path, tmp_path: Path) -> None:
    with pytest.raises(EightfoldError, match=r"none of the 8 images in .* can be read") as caught:
        compress_model(place / "net.onnx", place / "damaged", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "data").exists()


def test_labels_of_another_number_of_classes(place: Path, tmp_path: Path) -> None:
    options = CompressOptions(labelled=str(place / "labels"), minutes=0, batches=(1,), seconds=0.01)
    with pytest.raises(EightfoldError, match=r"10.*1|1.*10") as caught:
        compress_model(place / "net.onnx", place / "photos", tmp_path / "out", options=options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "bundle").exists()


@pytest.mark.parametrize(
    ("model", "package", "extra"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("smp:Unet/resnet18", "segmentation_models_pytorch", "smp"),
        ("ultralytics:yolov8n", "ultralytics", "ultralytics"),
        ("hf:vit", "transformers", "hf"),
    ],
)
def test_an_extra_that_is_missing(
    place: Path, model: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(place)
    brings = model.startswith("hf:")
    options = CompressOptions() if brings else CompressOptions(weights=place / "net.onnx", num_classes=3)
    with pytest.raises(EightfoldError, match=rf"pip install 'eightfold\[{extra}\]'") as caught:
        preview_compress(model, place / "photos", tmp_path / "out", options=options)
    assert "\n" not in str(caught.value)


def test_a_run_directory_of_other_things_is_left_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(EightfoldError, match=r"holds other things, such as mine\.txt"):
        compress_model(place / "net.onnx", place / "photos", tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("drop", [-1.0, float("nan"), float("inf")])
def test_points_that_may_be_lost_are_a_number(compress_inputs: Path, tmp_path: Path, drop: float) -> None:
    options = CompressOptions(max_drop=drop)
    with pytest.raises(UsageError, match=r"(-1|nan|inf) points that may be lost; allowed: 0 or more"):
        recipe_for(str(compress_inputs / "net.onnx"), str(compress_inputs / "photos"), tmp_path / "out", options)
