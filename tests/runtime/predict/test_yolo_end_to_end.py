"""A whole detector through a bundle against ultralytics' own pipeline, from a photograph to boxes on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.predict.predictor import Predictor

SIDE = 320


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    """(720, 1280, 3) BGR."""
    import ultralytics

    return np.asarray(cv2.imread(str(Path(ultralytics.__file__).parent / "assets" / "zidane.jpg")), np.uint8)


@pytest.fixture(scope="module")
def rows(photograph: NDArray[np.uint8]) -> torch.Tensor:
    from ultralytics.data.augment import LetterBox

    boxed: Any = LetterBox((SIDE, SIDE), auto=False)(image=photograph)
    return torch.from_numpy(boxed[..., ::-1].transpose(2, 0, 1)[None].copy()).float() / 255


@pytest.fixture(scope="module")
def network(rows: torch.Tensor) -> nn.Module:
    """YOLOv8n with random weights, whose class scores are spread so that some hundred candidates pass."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    make: Any = DetectionModel  # without annotations
    model: nn.Module = make("yolov8n.yaml", verbose=False)
    head: Any = model.model[-1]  # type: ignore[index]  # a Sequential, which the annotation does not say
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(2, 3, SIDE, SIDE))
        spread = model.eval()(rows)[1]["scores"].std()
        for branch in head.cv3:
            branch[-1].weight /= spread
            branch[-1].bias.zero_()
        mean = model(rows)[1]["scores"].mean()
        for branch in head.cv3:
            branch[-1].bias.fill_(-mean - 4.6)
    head.export = True
    return model


@pytest.mark.slow
def test_the_same_boxes_as_ultralytics(
    network: nn.Module, rows: torch.Tensor, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import scale_boxes

    onnx = export_onnx(network, tmp_path / "yolov8n.onnx", batch=1, image_size=SIDE)
    bundle = write_bundle(
        tmp_path / "bundle",
        name="yolov8n",
        task=Task(kind="detect", decode="yolo-boxes", options={"iou_threshold": 0.7}),
        preprocess=Preprocess(height=SIDE, width=SIDE, resize="letterbox"),
        artifacts=[onnx_artifact(onnx, id="b1", inside="b1.onnx", variant="plain")],
        files={"b1.onnx": onnx},
    )
    with Predictor(bundle, backend="onnxruntime", threads=1) as predictor:
        found = predictor.predict(photograph[..., ::-1])
    with torch.no_grad():
        (expected,) = non_max_suppression(network(rows), iou_thres=0.7)
    boxes = scale_boxes((SIDE, SIDE), expected[:, :4].clone(), photograph.shape)
    assert 20 < len(found) < 300
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-4)
    np.testing.assert_array_equal(found.classes, expected[:, 5])
    # ultralytics rounds the border of its letterbox in another place.
    np.testing.assert_allclose(found.boxes, boxes, atol=0.2)
