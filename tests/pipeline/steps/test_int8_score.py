"""The metric by which layers go back to float where images have no labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.pipeline.steps.int8 import _score
from eightfold.recipe_sections import TaskSection

SIDE = 8
NET = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x) => (float[1,5,16] y)
<float[5,12,1] w = {WEIGHTS}, int64[3] shape = {1, 12, 16}, float[5,1] bias = {2, 2, 2, 2, SCORE}> {
    r = Reshape (x, shape)
    m = ReduceMean <axes = [0], keepdims = 1> (r)
    c = Conv (m, w)
    b = Add (c, bias)
    y = Abs (b)
}
"""


@pytest.mark.parametrize(("score", "metric"), [("0.9", "agreement-map50"), ("0.01", "agreement-cosine")])
def test_a_detector_that_finds_nothing_is_judged_by_its_raw_outputs(tmp_path: Path, score: str, metric: str) -> None:
    """Boxes of two pixels around (2, 2), all with one score."""
    text = NET.replace("WEIGHTS", ", ".join(["0.01"] * 48 + ["0"] * 12)).replace("SCORE", score)
    path = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    images = ImageSet(tuple(np.full((SIDE, SIDE, 3), 20 * place, np.uint8) for place in range(4)))
    job: Any = SimpleNamespace(
        unlabelled=True,
        train_images=images,
        fed=Preprocess(height=SIDE, width=SIDE),
        task=SimpleNamespace(section=TaskSection(kind="detect", decode="yolo-boxes")),
        recipe=SimpleNamespace(calibrate=SimpleNamespace(images=4), seed=0),
        artifacts=SimpleNamespace(calibration=SimpleNamespace(path="net.onnx")),
        path=lambda name: tmp_path / name,
    )
    found = _score(job)
    assert found.name == metric
    assert found.of(path) == pytest.approx(100, abs=1)
