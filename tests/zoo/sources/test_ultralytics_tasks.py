"""Networks of ultralytics for masks, keypoints and turned boxes name the decoder that reads them."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.object_results import InstanceMasks, Keypoints, OrientedBoxes
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source

pytest.importorskip("ultralytics")


@pytest.mark.parametrize(
    ("name", "kind"), [("yolov8n-seg", InstanceMasks), ("yolov8n-pose", Keypoints), ("yolo11n-obb", OrientedBoxes)]
)
def test_the_named_decoder_reads_what_the_network_gives(name: str, kind: type) -> None:
    loaded = load_source(f"ultralytics:{name}", SourceOptions(size=(64, 96)))
    with torch.no_grad():
        outputs = loaded.module.eval()(torch.rand(1, 3, 64, 96))
    arrays = {str(number): each.numpy() for number, each in enumerate(tree_leaves(outputs))}
    options = {**loaded.task.options, "score_threshold": 0.0, "max_detections": 5}
    decode = decoder_of(loaded.task.model_copy(update={"options": options}))
    (found,) = decode(arrays, [loaded.preprocess.place(64, 96)])
    assert isinstance(found, kind)
    assert loaded.task.kind == "detect"
