"""What goes into a file is compared with the runtime's decoder, and recorded; and a bundle of it answers the same."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import VerificationError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.in_graph import decode_step
from eightfold.export.in_graph.decode_step import put_decoder_in
from eightfold.export.in_graph.detection_agreement import agreement, differing_part
from eightfold.export.in_graph.detections import with_detections
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.test_inputs import RANDOM
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess.results import Detections
from eightfold.runtime.predict.predictor import Predictor
from tests.export.networks import graph, saved

SIDE = 64
TASK = Task(kind="detect", decode="yolo-dfl", labels=("cat", "dog"), options={"reg_max": 4, "score_threshold": 0.4})


class TinyYolo(torch.nn.Module):
    """Raw maps of two scales: four bins per side, two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 8, stride=8)
        self.down = torch.nn.Conv2d(16, 16, 2, stride=2)
        heads = [torch.nn.Conv2d(16, 18, 1) for _ in range(2)]
        for head in heads:
            torch.nn.init.normal_(head.weight, std=1.5)
        self.heads = torch.nn.ModuleList(heads)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.stem(images).relu()
        return {"p3": self.heads[0](fine), "p4": self.heads[1](self.down(fine).relu())}


@pytest.fixture(scope="module")
def net() -> TinyYolo:
    torch.manual_seed(0)
    return TinyYolo().eval()


@pytest.fixture
def raw(net: TinyYolo, tmp_path: Path) -> Path:
    return export_onnx(net, tmp_path / "net.onnx", batch=2, image_size=SIDE)


def test_the_step_says_how_many_detections_agree(raw: Path) -> None:
    decoded, step = put_decoder_in(raw, TASK, (SIDE, SIDE))
    assert decoded.decode == "end-to-end"
    assert decoded.labels == TASK.labels
    assert (step.name, step.tool) == ("decode in graph", "onnx")
    assert step.max_abs_error is not None
    assert step.max_abs_error < 0.01
    words, _, same = step.notes[0].partition(": ")
    found = int(same.split()[2])
    assert (words, same) == (f"on {RANDOM}", f"{found} of {found} detections the same")
    assert found > 20
    assert [output.name for output in onnx.load(raw).graph.output] == ["detections"]


def test_a_threshold_that_nothing_reaches_is_lowered_to_compare(raw: Path) -> None:
    strict = TASK.model_copy(update={"options": {**TASK.options, "score_threshold": 0.9999}})
    decoded, step = put_decoder_in(raw, strict, (SIDE, SIDE))
    assert decoded.options["score_threshold"] == 0.9999
    assert int(step.notes[0].partition(": ")[2].split()[0]) > 20


def test_a_graph_that_finds_other_things_is_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, right = raw.read_bytes(), with_detections

    def wrong(model: onnx.ModelProto, task: Task, size: tuple[int, int], **more: Any) -> tuple[onnx.ModelProto, Task]:
        return right(model, task, (size[0] * 2, size[1]), **more)

    monkeypatch.setattr(decode_step, "with_detections", wrong)
    words = r"on random values .*: \d+ of \d+ detections the same; first diverging tensor: '{}'; allowed: at least 99%"
    with pytest.raises(VerificationError, match=words.format("boxes of detections")):
        put_decoder_in(raw, TASK, (SIDE, SIDE))
    assert raw.read_bytes() == before


def test_a_graph_that_computes_other_things_before_the_decoder_is_refused_by_the_layer(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = with_detections
    layer = next(node for node in onnx.load(raw).graph.node if node.op_type == "Conv")

    def wrong(model: onnx.ModelProto, *given: Any, **more: Any) -> tuple[onnx.ModelProto, Task]:
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        (weight,) = (tensor for tensor in spoilt.graph.initializer if tensor.name == layer.input[1])
        weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
        return right(spoilt, *given, **more)

    monkeypatch.setattr(decode_step, "with_detections", wrong)
    with pytest.raises(VerificationError, match=rf"first diverging tensor: '{re.escape(layer.output[0])}'"):
        put_decoder_in(raw, TASK, (SIDE, SIDE))


def test_a_network_that_differs_on_extremes_alone_is_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = with_detections

    def limited(model: onnx.ModelProto, *given: Any, **more: Any) -> tuple[onnx.ModelProto, Task]:
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        own = spoilt.graph.input[0].name
        for node in spoilt.graph.node:
            node.input[:] = ["limited" if name == own else name for name in node.input]
        spoilt.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "lowest"))
        spoilt.graph.node.insert(0, helper.make_node("Max", [own, "lowest"], ["limited"]))
        return right(spoilt, *given, **more)

    monkeypatch.setattr(decode_step, "with_detections", limited)
    layer = next(node for node in onnx.load(raw).graph.node if node.op_type == "Conv")
    words = rf"decode in graph on extremes: .*; first diverging tensor: '{re.escape(layer.output[0])}'"
    with pytest.raises(VerificationError, match=words):
        put_decoder_in(raw, TASK, (SIDE, SIDE))


def test_boxes_that_are_none_are_the_same(tmp_path: Path) -> None:
    """Where pixels are what a detector puts out, noise gives boxes of negative width."""
    nodes = [helper.make_node("Reshape", ["images", "shape"], ["boxes"])]
    detector = graph(nodes, {"images": [1, 3, 16, 16]}, {"boxes": [1, 6, 128]}, {"shape": np.array([0, 6, 128])})
    task = Task(kind="detect", decode="yolo-boxes", options={"max_detections": 9})
    _, step = put_decoder_in(saved(detector, tmp_path / "net.onnx"), task, (16, 16))
    assert step.notes[-1] == "on noise: 9 of 9 detections the same"


@pytest.mark.parametrize(("part", "rows"), [("scores", 0.5), ("classes", 1), ("boxes", 3)])
def test_the_part_that_differs_is_told(part: str, rows: float) -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 40]], np.float32)
    one = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]), ("a", "b"))
    other = dataclasses.replace(one, **{part: getattr(one, part) + rows})
    assert agreement([[one]], [[one]]).same == 2
    assert agreement([[other]], [[one]]).same == 0
    assert differing_part([[other]], [[one]]) == part
    shorter = Detections(boxes[:1], one.scores[:1], one.classes[:1], ("a",))
    assert differing_part([[shorter]], [[one]]) == "rows"


def test_a_bundle_that_decodes_in_the_graph_answers_as_one_that_does_not(net: TinyYolo, tmp_path: Path) -> None:
    how = Preprocess(height=SIDE, width=SIDE, resize="letterbox")
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    answers = []
    for decode in (False, True):
        path = export_bundle(
            net, tmp_path / f"{decode}", preprocess=how, task=TASK, decode=decode, preprocess_in_graph=decode
        )
        with Predictor(path, backend="onnxruntime") as predictor:
            answers.append(predictor.predict(image))
    outside, inside = answers
    assert len(outside) > 5
    assert inside.labels == outside.labels
    np.testing.assert_allclose(inside.scores, outside.scores, atol=1e-4)
    np.testing.assert_allclose(inside.boxes, outside.boxes, atol=0.01)


def test_a_bundle_for_an_old_tensorrt_holds_the_plugin(net: TinyYolo, tmp_path: Path) -> None:
    where, how = tmp_path / "b", Preprocess(height=SIDE, width=SIDE)
    bundle = Bundle.open(export_bundle(net, where, preprocess=how, task=TASK, decode=True, targets=["tensorrt:8.2"]))
    (artifact,) = bundle.manifest.artifacts
    model = onnx.load(bundle.artifact_path(artifact))
    assert "EfficientNMS_TRT" in {node.op_type for node in model.graph.node}
    assert (opset_of(model), model.ir_version) == (13, 7)
    assert artifact.steps[-1].notes[-1] == "compared with NonMaxSuppression in the plugin's place"
