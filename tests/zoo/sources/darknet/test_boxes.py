"""The runtime's decoder, with the options that a cfg gives, finds the boxes that Darknet finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.results import Detections
from eightfold.zoo.sources.darknet.cfg import read_cfg
from eightfold.zoo.sources.darknet.network import build_network
from eightfold.zoo.sources.darknet.source import darknet_task
from tests.zoo.sources.darknet.networks import PACKAGE, lively, needs_darknet, thin, write_unpruned
from tests.zoo.sources.darknet.oracle import darknet_boxes

THRESHOLD = 0.3


@needs_darknet
def test_boxes_are_darknets(tmp_path: Path) -> None:
    network = lively(build_network(thin(read_cfg(PACKAGE / "yolov3-tiny.cfg"), side=96)))
    image = torch.rand(1, *network.size, generator=torch.Generator().manual_seed(1))
    expected = darknet_boxes(*write_unpruned(network, tmp_path), image.numpy(), THRESHOLD)
    assert len(expected) > 20
    task = darknet_task(network.cfg)
    options = {"score_threshold": THRESHOLD, "multi_label": True, "nms": False, "max_candidates": 10**6}
    decode = decoder_of(task.model_copy(update={"options": {**task.options, **options, "max_detections": 10**6}}))
    with torch.no_grad():
        outputs = {str(number): each.numpy() for number, each in enumerate(network(image))}
    (found,) = decode(outputs, [Preprocess(height=96, width=96).place(96, 96)])
    assert isinstance(found, Detections)
    # Ours are clipped to the image.
    corners = np.concatenate((expected[:, 2:4] - expected[:, 4:] / 2, expected[:, 2:4] + expected[:, 4:] / 2), axis=1)
    rows = np.column_stack((expected[:, :2], np.clip(corners * 96, 0, 96))).astype(np.float64)
    seen = np.column_stack((found.classes, found.scores, found.boxes)).astype(np.float64)
    assert len(seen) == len(rows)
    distances = np.array([np.abs(rows - each).max(axis=1) for each in seen])
    assert distances.min(axis=0).max() < 1e-3
    assert distances.min(axis=1).max() < 1e-3
