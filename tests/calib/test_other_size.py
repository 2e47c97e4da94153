"""Ranges that were found at one image size, taken to another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.calib.other_size import ranges_at_size
from eightfold.errors import CalibrationError
from eightfold.export.int8.quantize import quantize

ModelMaker = Callable[..., Path]


def scales(path: Path) -> dict[str, bytes]:
    model = onnx.load(str(path))
    names = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return {tensor.name: tensor.raw_data for tensor in model.graph.initializer if tensor.name in names}


def test_one_calibration_serves_every_size(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    usual, larger = residual_net(), residual_net(batch=2, side=20)
    ranges = calibrate(usual, rows, None, method="minmax")
    with pytest.raises(CalibrationError, match="the ranges belong to another network"):
        quantize(larger, ranges, tmp_path / "larger.onnx")
    quantize(usual, ranges, tmp_path / "usual.onnx", form="qdq")
    quantize(larger, ranges_at_size(ranges, usual, larger), tmp_path / "larger.onnx", form="qdq")
    assert scales(tmp_path / "usual.onnx") == scales(tmp_path / "larger.onnx") != {}


def test_ranges_of_another_graph(residual_net: ModelMaker, rows: Any) -> None:
    ranges = calibrate(residual_net(), rows, None, method="minmax")
    with pytest.raises(CalibrationError, match="the ranges belong to another network"):
        ranges_at_size(ranges, residual_net(seed=1), residual_net(side=20))


def test_other_weights_are_another_network_at_any_size(residual_net: ModelMaker, rows: Any) -> None:
    ranges = calibrate(residual_net(), rows, None, method="minmax")
    words = r"differ in weights \('w1'\), not in sizes alone; allowed: one network at two image sizes; calibrate each"
    with pytest.raises(CalibrationError, match=words):
        ranges_at_size(ranges, residual_net(), residual_net(seed=1, side=20))


@pytest.mark.parametrize("change", ["rename", "drop"])
def test_other_nodes_are_another_network(residual_net: ModelMaker, rows: Any, change: str) -> None:
    usual, larger = residual_net(), residual_net(side=20)
    model = onnx.load(str(larger))
    if change == "rename":
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "other"
    else:
        del model.graph.node[3]
        model.graph.node[3].input[0] = "depthwise"
    onnx.save(model, str(larger))
    ranges = calibrate(usual, rows, None, method="minmax")
    with pytest.raises(CalibrationError, match="differ in nodes or names of tensors"):
        ranges_at_size(ranges, usual, larger)
