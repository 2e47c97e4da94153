from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.errors import CalibrationError
from eightfold.export.int8.layer_errors import compare_layers
from eightfold.export.int8.quantize import quantize
from eightfold.export.verify.sqnr import NO_ERROR_DB, sqnr_db

ModelMaker = Callable[..., Path]


def test_a_spoilt_layer_is_the_worst(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None, method="minmax")
    spoilt = ranges.tensors["depthwise_relu"].model_copy(update={"high": 0.01})
    ranges = ranges.model_copy(update={"tensors": {**ranges.tensors, "depthwise_relu": spoilt}})
    output, _ = quantize(path, ranges, tmp_path / "int8.onnx", form="qdq")
    errors = compare_layers(path, output, rows[:10])
    assert errors.images == 10
    assert {entry.tensor for entry in errors.layers[:2]} == {"depthwise_relu", "point"}
    assert errors.layers[0].sqnr_db < 5 < 20 < errors.layers[-1].sqnr_db
    assert "worst first" in errors.describe()


def test_the_ratio_is_the_textbooks() -> None:
    signal, noise = np.full(100, 10.0), np.full(100, 0.1)
    assert sqnr_db(float(signal @ signal), float(noise @ noise)) == pytest.approx(40)
    assert sqnr_db(1.0, 0.0) == NO_ERROR_DB


def test_graphs_without_anything_in_common(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    import onnx

    path = residual_net()
    other = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[1,3,12,12] image) => (float[1,3,12,12] other) '
        "{ other = Relu (image) }"
    )
    onnx.save(other, str(tmp_path / "other.onnx"))
    with pytest.raises(CalibrationError, match="shares no activation"):
        compare_layers(path, tmp_path / "other.onnx", rows)
