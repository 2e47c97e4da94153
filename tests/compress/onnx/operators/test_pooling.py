"""Pooling by windows larger than the map, against torch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from eightfold.compress.onnx.graph_file import onnx_module


def expected(operator: str, x: Tensor, kernel: int, stride: int, pad: int) -> Tensor:
    if operator == "MaxPool":
        return F.max_pool2d(x, kernel, stride, pad, ceil_mode=True)
    return F.avg_pool2d(x, kernel, stride, pad, ceil_mode=True, count_include_pad=operator == "counted")


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 3), (7, 7), (1280, 1280)])
@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool", "counted"])
def test_windows_beyond_the_map(tmp_path: Path, operator: str, kernel: int, stride: int, pad: int) -> None:
    """transformers' EfficientNet pools by windows of 1280x1280, whose padding would take gigabytes."""
    attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    attributes |= {"ceil_mode": 1} | ({"count_include_pad": 1} if operator == "counted" else {})
    node = helper.make_node("MaxPool" if operator == "MaxPool" else "AveragePool", ["x"], ["y"], **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "graph", [value("x", 1, [1, 64, 4, 5])], [value("y", 1, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), tmp_path / "p.onnx")
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 64, 4, 5), np.float32))
    found = onnx_module(tmp_path / "p.onnx")(x)
    torch.testing.assert_close(found, expected(operator, x, kernel, stride, pad), atol=1e-6, rtol=1e-5)
