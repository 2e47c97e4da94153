"""Bias correction against what the means of the outputs really are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.data_reader import open_data
from eightfold.errors import UsageError
from eightfold.export.int8.bias_correction import correct_analytically
from eightfold.export.int8.int8 import quantize_weight
from eightfold.export.int8.quantize import quantize
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import layers_of, value_of
from eightfold.onnx_graph.onnx_files import load_onnx

ModelMaker = Callable[..., Path]


def outputs_of(model: onnx.ModelProto, tensor: str, rows: Any) -> Any:
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": row[None]})[0] for row in rows])


def test_analytic_undoes_the_mean_of_rounding(residual_net: ModelMaker, rows: Any) -> None:
    graph = ModelGraph(load_onnx(residual_net()), "net")
    (point,) = (layer for layer in layers_of(graph) if layer.name == "point")  # 1x1: no padding
    expected = outputs_of(load_onnx(residual_net()), "point", rows).mean(axis=(0, 2, 3))
    effect = correct_analytically(graph, [point], open_data(rows, None, (3, 12, 12)))
    assert effect["point"] > 0
    weight = value_of(graph.weights["w3"])
    graph.weights["w3"].CopyFrom(onnx.numpy_helper.from_array(quantize_weight(weight, 0).real(), "w3"))
    found = outputs_of(graph.model, "point", rows).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_empirical_brings_the_means_of_the_quantized_net_back(
    residual_net: ModelMaker, rows: Any, tmp_path: Path
) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None, method="mse")
    plain, _ = quantize(path, ranges, tmp_path / "plain.onnx", form="qdq")
    corrected, report = quantize(
        path, ranges, tmp_path / "corrected.onnx", form="qdq", bias_correction="empirical", images=rows
    )
    assert set(report.bias_shifts) == {"stem", "depthwise", "point", "logits"}
    expected = outputs_of(load_onnx(path), "point", rows).mean(axis=(0, 2, 3))
    before = outputs_of(load_onnx(plain), "point", rows).mean(axis=(0, 2, 3))
    after = outputs_of(load_onnx(corrected), "point", rows).mean(axis=(0, 2, 3))
    assert np.abs(after - expected).max() < 0.2 * np.abs(before - expected).max()


def test_a_correction_needs_images(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    with pytest.raises(UsageError, match="a correction without images"):
        quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx", form="qdq", bias_correction="analytic")
