"""Small ONNX graphs made by code, with the constructs that calibration and quantization care about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[{batch},3,{side},{side}] image) => (float[{batch},5] logits)
{{
    stem = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (image, w1, b1)
    stem_relu = Relu (stem)
    depthwise = Conv <pads=[1,1,1,1], kernel_shape=[3,3], group=8> (stem_relu, w2, b2)
    depthwise_relu = Relu (depthwise)
    point = Conv <kernel_shape=[1,1]> (depthwise_relu, w3, b3)
    sum = Add (point, stem_relu)
    sum_relu = Relu (sum)
    pool = GlobalAveragePool (sum_relu)
    flat = Reshape (pool, flat_shape)
    logits = Gemm <transB=1> (flat, w4, b4)
}}
"""
SHAPES = {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (8, 8, 1, 1), "w4": (5, 8)}

ModelMaker = Callable[..., Path]


def add_weights(model: onnx.ModelProto, arrays: dict[str, Any]) -> None:
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())


def residual_weights(seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    weights = {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in SHAPES.items()}
    biases = {f"b{name[1]}": random.normal(0, 0.1, shape[0]).astype(np.float32) for name, shape in SHAPES.items()}
    return {**weights, **biases}


@pytest.fixture
def residual_net(tmp_path: Path) -> ModelMaker:
    """make(batch=1, seed=0, side=12, **arrays) -> path of a net with a residual, a depthwise and a dense layer."""

    def make(batch: int = 1, seed: int = 0, side: int = 12, **arrays: Any) -> Path:
        model = parser.parse_model(RESIDUAL.format(batch=batch, side=side))
        shape = np.array([batch, 8], np.int64)
        add_weights(model, {**residual_weights(seed), "flat_shape": shape, **arrays})
        path = tmp_path / f"net_{batch}_{seed}_{side}.onnx"
        onnx.save(model, str(path))
        return path

    return make


@pytest.fixture
def rows() -> Any:
    """40 rows (3, 12, 12) of model-ready input."""
    return np.random.default_rng(1).normal(0, 1, (40, 3, 12, 12)).astype(np.float32)
