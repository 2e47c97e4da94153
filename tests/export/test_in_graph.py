from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from eightfold.calib.geometry import place
from eightfold.calib.preprocess import Preprocess
from eightfold.calib.transform import tensor_from_image
from eightfold.errors import BuildError, UsageError
from eightfold.export.detections import Suppression, with_nms
from eightfold.export.in_graph import with_preprocess
from eightfold.export.onnx_export import export_onnx
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.layers import layers_of_network
from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.export.verify import run_onnx
from eightfold.runtime.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.results import Detections
from tests.export.networks import graph, saved, small_net

IMAGENET = Preprocess(height=16, width=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), color="bgr")
RNG = np.random.default_rng(0)


def test_pixels_in_give_the_answer_of_preprocessed_images(tmp_path: Path) -> None:
    model = onnx.load(export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16))
    inside, how = with_preprocess(model, IMAGENET)
    onnx.checker.check_model(inside, full_check=True)
    image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    floats, pixels = (tensor_from_image(each, image)[None] for each in (IMAGENET, how))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (1, 16, 16, 3)
    before = run_onnx(model.SerializeToString(), {"images": floats})["logits"]
    after = run_onnx(inside.SerializeToString(), {"images": pixels})["logits"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_preprocessing_twice_is_refused(tmp_path: Path) -> None:
    model = onnx.load(export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16))
    inside, how = with_preprocess(model, IMAGENET)
    with pytest.raises(UsageError, match="images uint8"):
        with_preprocess(inside, how)


CLASSES, LOCATIONS, SIZE = 3, 200, 64


def _detector(batch: int) -> onnx.ModelProto:
    shape = [batch, 4 + CLASSES, LOCATIONS]
    return graph([helper.make_node("Identity", ["images"], ["raw"])], {"images": shape}, {"raw": shape})


def _head(batch: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    boxes = np.concatenate([RNG.uniform(10, 54, (batch, 2, LOCATIONS)), RNG.uniform(4, 20, (batch, 2, LOCATIONS))], 1)
    return np.concatenate([boxes, RNG.random((batch, CLASSES, LOCATIONS)) ** 2], 1).astype(np.float32)


@pytest.mark.parametrize("most", [5, 300])
def test_detections_in_the_graph_are_those_of_the_decoder(most: int) -> None:
    task = Task(kind="detect", decode="yolo-boxes", options={"max_detections": most, "max_candidates": 10_000})
    model, decoded = with_nms(_detector(2), task, Suppression(max_detections=most))
    onnx.checker.check_model(model, full_check=True)
    head = _head(2)
    outputs = run_onnx(model.SerializeToString(), {"images": head})
    assert outputs["detections"].shape == (2, most, 6)
    placement = place(Preprocess(height=SIZE, width=SIZE), SIZE, SIZE)
    for inside, outside in zip(
        decoder_of(decoded)(outputs, [placement] * 2), decoder_of(task)({"raw": head}, [placement] * 2), strict=True
    ):
        assert isinstance(inside, Detections)
        assert isinstance(outside, Detections)
        assert len(outside.scores) > 1
        np.testing.assert_array_equal(inside.classes, outside.classes)
        np.testing.assert_allclose(inside.scores, outside.scores)
        np.testing.assert_allclose(inside.boxes, outside.boxes, atol=1e-4)


def test_rtx_which_has_no_suppression_is_not_asked_for_it(tmp_path: Path) -> None:
    model, _ = with_nms(_detector(1), Task(kind="detect", decode="yolo-boxes"), Suppression())
    file = saved(model, tmp_path / "x.onnx")
    words = r"is NonMaxSuppression, which TensorRT-RTX does not have; .*; export without --nms"
    with pytest.raises(BuildError, match=words):
        build_engine(file, tmp_path / "x.engine", precision="fp16")


def test_tensorrts_parser_takes_suppression() -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx")  # its parser is TensorRT's
    model, _ = with_nms(_detector(1), Task(kind="detect", decode="yolo-boxes"), Suppression())
    logger = collecting_logger(trt, [])
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(model.SerializeToString())
    assert "nms" in {layers.kind for layers in layers_of_network(network).layers}


def test_the_plugin_form_has_the_plugins_outputs() -> None:
    model, _ = with_nms(_detector(2), Task(kind="detect", decode="yolo-boxes"), Suppression(), form="efficient")
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output}
    assert shapes == {"num_dets": [2, 1], "det_boxes": [2, 300, 4], "det_scores": [2, 300], "det_classes": [2, 300]}


def test_another_output_is_refused() -> None:
    model = graph([helper.make_node("Relu", ["images"], ["out"])], {"images": [1, 5]}, {"out": [1, 5]})
    with pytest.raises(UsageError, match=r"puts out out \(1, 5\); allowed: one output"):
        with_nms(model, Task(kind="detect", decode="yolo-boxes"), Suppression())
