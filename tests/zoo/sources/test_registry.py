"""Every source loads a network with what its library knows of it; wrong names and files are one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from benchmarks.masked_reference import masked_error
from safetensors.torch import save_file
from torch import nn

from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.export.verify.module_runs import output_tensors
from eightfold.zoo.sources.base import LoadedModel, SourceOptions, SourceWarning
from eightfold.zoo.sources.registry import SOURCES, load_source, source_of
from tests.zoo.sources.tiny import ultralytics_checkpoint

OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
    def forward(self, images, inference, gain=1.0):
        return self.conv(images) * (gain if inference else 0)
def leaves():
    print("cannot find the pretrained backbone")
    exit()
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sources.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_sources", raising=False)


def shapes(loaded: LoadedModel) -> list[tuple[int, ...]]:
    with torch.no_grad():
        output = loaded.module.eval()(*loaded.example_inputs())
    return [tuple(tensor.shape) for _, tensor in output_tensors(output)]


def test_each_source_has_a_name_of_its_own_and_says_what_it_needs() -> None:
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert all(source.form and source.gives and source.extra for source in SOURCES)


def test_a_classifier_of_torchvision_is_prepared_as_its_weights_were() -> None:
    """https://docs.pytorch.org/vision: efficientnet_b1 (V2 weights) resizes to 255 and crops 240."""
    found = load_source("efficientnet_b1", SourceOptions(num_classes=7)).preprocess
    assert (found.height, found.shorter_side, found.interpolation) == (240, 255, "bilinear")
    assert found.mean == (0.485, 0.456, 0.406)


def test_a_segmenter_of_torchvision_takes_published_weights_with_their_auxiliary_head(tmp_path: Path) -> None:
    from torchvision.models import segmentation

    theirs = segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    asked = SourceOptions(num_classes=5, size=(64, 64), weights=tmp_path / "w.safetensors")
    loaded = load_source("fcn_resnet50", asked)
    assert (loaded.task.kind, loaded.task.decode, loaded.brings_weights) == ("segment", "segment", True)
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        assert torch.equal(loaded.module.eval()(images)["out"], theirs.eval()(images)["out"])


def test_an_rcnn_of_torchvision_has_a_fixed_number_of_detections() -> None:
    loaded = load_source("fasterrcnn_mobilenet_v3_large_320_fpn", SourceOptions(num_classes=3, size=(64, 64)))
    assert (loaded.task.kind, loaded.task.decode, loaded.exportable) == ("detect", "end-to-end", "")
    assert shapes(loaded) == [(1, 100, 6)]


def test_an_rcnn_with_keypoints_can_be_traced_and_not_exported() -> None:
    loaded = load_source("keypointrcnn_resnet50_fpn", SourceOptions(num_classes=1, size=(64, 64)))
    assert "heat maps of its keypoints" in loaded.exportable


def test_timm_knows_its_preprocessing() -> None:
    timm = pytest.importorskip("timm", reason="the extra [timm] is not installed")
    found = load_source("timm:resnet18").preprocess
    stated = timm.data.resolve_model_data_config(timm.create_model("resnet18"))
    assert (found.height, found.width) == stated["input_size"][1:]
    assert (found.mean, found.std, found.interpolation) == (stated["mean"], stated["std"], stated["interpolation"])
    assert found.shorter_side == int(found.height / stated["crop_pct"])


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_a_yolo_gives_its_raw_maps_which_decode_to_what_ultralytics_decodes(name: str) -> None:
    import numpy as np

    from eightfold.calib.images.geometry import Placement
    from eightfold.runtime.postprocess import decoder_of
    from eightfold.zoo.sources.ultralytics import _configurations

    pytest.importorskip("ultralytics", reason="the extra [ultralytics] is not installed")
    from ultralytics.nn.tasks import DetectionModel

    loaded = load_source(f"ultralytics:{name}", SourceOptions(num_classes=4, size=(64, 96)))
    theirs: Any = DetectionModel(str(_configurations()[name]), nc=4, verbose=False).eval()  # type: ignore[no-untyped-call]  # untyped there
    theirs.load_state_dict(loaded.module.state_dict())  # parameters keep their names
    head = theirs.model[-1]
    head.end2end = False
    images = torch.rand(1, 3, 64, 96)
    options = {**loaded.task.options, "score_threshold": 0.0, "nms": False, "multi_label": False}
    decode: Any = decoder_of(loaded.task.model_copy(update={"options": options}))
    with torch.no_grad():
        raw = loaded.module.eval()(images)
        if getattr(head, "one2one_cv2", None) is not None:
            head.cv2, head.cv3 = head.one2one_cv2, head.one2one_cv3
        expected = theirs(images)[0][0].numpy()
    outputs = {str(place): each.numpy() for place, each in enumerate(raw)}
    (found,) = decode(outputs, [Placement((64, 96), (64, 96), (0, 0), (64, 96))])
    best = np.sort(expected[4:].max(axis=0))[::-1][: len(found.scores)]
    assert np.allclose(np.sort(found.scores)[::-1], best, atol=1e-5)


def test_a_checkpoint_of_ultralytics_warns_that_it_unpickles(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics", reason="the extra [ultralytics] is not installed")
    with pytest.raises(ModelError, match=r"no file .*absent\.pt"):
        load_source(f"ultralytics:{tmp_path / 'absent.pt'}")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match="unpickled"), pytest.raises(ModelError, match="cannot load"):
        load_source(f"ultralytics:{tmp_path / 'bad.pt'}")


@pytest.mark.parametrize("prefix", ["ultralytics:", ""])
def test_a_checkpoint_of_ultralytics_is_their_network_with_its_weights(tmp_path: Path, prefix: str) -> None:
    pytest.importorskip("ultralytics", reason="the extra [ultralytics] is not installed")
    from ultralytics.models import YOLO as Yolo

    path = ultralytics_checkpoint(tmp_path)
    with pytest.warns(SourceWarning, match=r"best\.pt is unpickled by Ultralytics' library"):
        loaded = load_source(f"{prefix}{path}", SourceOptions(size=(32, 32)))
    theirs: Any = Yolo(path).model
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        maps = loaded.module.eval()(images)
        _, known = theirs.eval()(images)
    boxes = torch.cat([each[:, : 4 * 16].flatten(2) for each in maps], 2)
    assert torch.equal(boxes, known["boxes"])
    assert (loaded.brings_weights, loaded.task.labels) == (True, ("0", "1", "2"))
    with pytest.raises(UsageError, match="this one has its own"):
        load_source(f"{prefix}{path}", SourceOptions(num_classes=3))


def test_a_bare_file_of_weights_alone_is_no_network(tmp_path: Path) -> None:
    """It is looked at without unpickling: a list of tensors is no network of Ultralytics."""
    torch.save({"ultralytics.nn.tasks": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="such a file holds weights without the network"):
        load_source(str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("name", ["yolov8n", "yolov10n", "yolo26n"])
def test_pruning_reaches_what_only_the_training_of_a_yolo_runs(name: str) -> None:
    pytest.importorskip("ultralytics", reason="the extra [ultralytics] is not installed")
    import eightfold as ef

    loaded = load_source(f"ultralytics:{name}", SourceOptions(num_classes=4, size=(64, 64)))
    network, calls = loaded.module.eval(), (*loaded.example_inputs(), *loaded.trace_arguments)
    plan = ef.plan_pruning(network, calls)
    assert plan.unreached == ()
    assert masked_error(network, calls, plan) < 1e-4


def test_further_arguments_of_forward_are_fixed(own_code: None) -> None:
    loaded = load_source("own_sources:Net", SourceOptions(size=(8, 8), inputs={"inference": True, "gain": 2.0}))
    images = torch.rand(1, 3, 8, 8)
    network = loaded.module
    assert isinstance(network.conv, nn.Conv2d)
    assert torch.equal(network(images), 2 * network.conv(images))
    assert loaded.arguments["inputs"] == {"inference": True, "gain": 2.0}
    with pytest.raises(ModelError, match=r"forward has no argument 'mode'; allowed: images, inference, gain"):
        load_source("own_sources:Net", SourceOptions(inputs={"mode": 1}))


def test_code_that_exits_is_an_error_of_one_line(own_code: None) -> None:
    with pytest.raises(ModelError, match=r"own_sources:leaves called exit\(\); allowed: code that returns"):
        load_source("own_sources:leaves")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timmm:resnet18", "unknown model source 'timmm'.*did you mean 'timm:resnet18'"),
        ("resnet19", "unknown model 'resnet19'.*did you mean 'resnet1"),
        ("yolov8n", "did you mean 'ultralytics:yolov8n'"),
    ],
)
def test_a_wrong_name_gets_the_nearest(text: str, words: str) -> None:
    pytest.importorskip("ultralytics", reason="the extra [ultralytics] is not installed")
    with pytest.raises(UnknownNameError, match=words):
        source_of(text)


@pytest.mark.parametrize(
    ("recorded", "size"), [("[320, 416]", (320, 416)), ("all", (224, 224)), ("[0, 0]", (224, 224))]
)
def test_an_onnx_file_of_any_size_takes_the_size_that_it_records(
    tmp_path: Path, recorded: str, size: tuple[int, int]
) -> None:
    image = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
    output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["output"])], "net", [image], [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.helper.set_model_props(model, {"imgsz": recorded})
    onnx.save(model, tmp_path / "net.onnx")
    path = str(tmp_path / "net.onnx")
    assert load_source(path).size == size
    assert load_source(path, SourceOptions(size=(64, 96))).size == (64, 96)


def test_an_onnx_file_has_its_own_weights_and_size(tmp_path: Path) -> None:
    import eightfold as ef

    path = ef.export_onnx(nn.Conv2d(3, 8, 3), tmp_path / "net.onnx", batch=1, image_size=(16, 24))
    loaded = load_source(str(path))
    assert (loaded.size, loaded.network, loaded.name, loaded.brings_weights) == ((16, 24), path, "net", True)
    with pytest.raises(UsageError, match=r"weights or a number of classes beside .*: this one has its own"):
        load_source(str(path), SourceOptions(num_classes=3))
    with pytest.raises(UsageError, match=r"images of 32x32 .* fixed at 16x24"):
        load_source(str(path), SourceOptions(size=(32, 32)))
    with pytest.raises(ModelError, match=r"no ONNX file absent\.onnx"):
        load_source("absent.onnx")


def test_a_folder_of_other_things_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the folder .* allowed: a folder that eightfold prune wrote"):
        load_source(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("a/net.onnx", "A/NET.ONNX"),
        ("hf:a/vit", "hf:A/VIT"),
        ("darknet:a.cfg", "darknet:A.CFG"),
        ("darknet:a/b.cfg+c.weights", "darknet:A/B.CFG+C.WEIGHTS"),
        ("ultralytics:yolov8n.yaml", "ultralytics:YOLOV8N.YAML"),
        ("ultralytics:best.pt", "ultralytics:BEST.PT"),
        ("ultralytics:yolov8n", "ultralytics:yolov8n"),
        ("package.module:net", "package.module:net"),
        ("modnet", "modnet"),
    ],
)
def test_the_paths_in_a_source(text: str, changed: str) -> None:
    assert source_of(text).with_paths(text, str.upper) == changed
