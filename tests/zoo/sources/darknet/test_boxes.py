"""The runtime's decoder, with the options that a cfg gives, finds the boxes that Darknet finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.results import Detections
from eightfold.zoo.sources.darknet.cfg import read_cfg
from eightfold.zoo.sources.darknet.network import build_network
from eightfold.zoo.sources.darknet.source import darknet_task
from tests.zoo.sources.darknet.networks import PACKAGE, lively, needs_darknet, thin, write_unpruned
from tests.zoo.sources.darknet.oracle import darknet_boxes

# Decoder, and a threshold that random weights pass here and there.
NETWORKS = {
    "yolov3-tiny": ("yolo-anchors", 0.3),
    "yolov2-tiny": ("yolo-anchors", 0.005),
    "yolov1-tiny": ("yolo-grid", 1e-4),
}


@needs_darknet
@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_are_darknets(name: str, tmp_path: Path) -> None:
    decoder, threshold = NETWORKS[name]
    network = lively(build_network(thin(read_cfg(PACKAGE / f"{name}.cfg"), side=96)))
    side = network.size[-1]
    image = torch.rand(1, *network.size, generator=torch.Generator().manual_seed(1))
    classes = network.cfg.layers[-1].integer("classes", 0)
    expected = darknet_boxes(*write_unpruned(network, tmp_path), image.numpy(), threshold, classes)
    assert len(expected) > 20
    task = darknet_task(network.cfg)
    assert task.decode == decoder
    options = {"score_threshold": threshold, "multi_label": True, "nms": False, "max_candidates": 10**6}
    decode = decoder_of(task.model_copy(update={"options": {**task.options, **options, "max_detections": 10**6}}))
    with torch.no_grad():
        answer = network(image)
    maps = (answer,) if isinstance(answer, torch.Tensor) else answer
    outputs = {str(number): each.numpy() for number, each in enumerate(maps)}
    (found,) = decode(outputs, [Preprocess(height=side, width=side).place(side, side)])
    assert isinstance(found, Detections)
    # Ours are clipped to the image. Darknet's are shares of its sides, or of [detection] pixels.
    unit = 1 if decoder == "yolo-grid" else side
    corners = np.concatenate((expected[:, 2:4] - expected[:, 4:] / 2, expected[:, 2:4] + expected[:, 4:] / 2), axis=1)
    rows = np.column_stack((expected[:, :2], np.clip(corners * unit, 0, side))).astype(np.float64)
    seen = np.column_stack((found.classes, found.scores, found.boxes)).astype(np.float64)
    assert len(seen) == len(rows)
    distances = np.array([np.abs(rows - each).max(axis=1) for each in seen])
    assert distances.min(axis=0).max() < 1e-3
    assert distances.min(axis=1).max() < 1e-3
