"""Adaptive rounding against trying every combination, and what it does to a network's outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.export.int8.adaround import _patches, adaptive_rounding, blocks_of
from eightfold.export.int8.layer_errors import output_sqnr_db
from eightfold.export.int8.quantize import quantize
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import layers_of, value_of
from eightfold.onnx_graph.onnx_files import load_onnx

ModelMaker = Callable[..., Path]


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_near_the_best_of_all_combinations(seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs = random.normal(0, 1, (200, 3)) @ random.normal(0, 1, (3, 8))  # correlated: rounding errors can cancel
    gram = (inputs.T @ inputs / 200)[None]
    gram = gram / np.trace(gram[0]) * 8
    exact = random.uniform(-100, 100, (1, 4, 8))
    found, share = adaptive_rounding(exact, gram)
    assert (np.abs(found - exact) < 1).all()

    def error(integers: Any, output: int) -> float:
        difference = integers - exact[0, output]
        return float(difference @ gram[0] @ difference)

    corners = [np.array(corner) for corner in itertools.product((0, 1), repeat=8)]
    best = sum(min(error(np.floor(exact[0, o]) + corner, o) for corner in corners) for o in range(4))
    nearest = sum(error(np.rint(exact[0, o]), o) for o in range(4))
    mine = sum(error(found[0, o], o) for o in range(4))
    assert share == pytest.approx(mine / nearest, rel=1e-3)
    assert mine <= 0.5 * (best + nearest)


def test_patches_are_what_the_convolution_multiplies(residual_net: ModelMaker, rows: Any) -> None:
    graph = ModelGraph(load_onnx(residual_net()), "net")
    layers = {layer.name: layer for layer in layers_of(graph)}
    for name in ("stem", "depthwise"):
        layer = layers[name]
        channels = layer.groups * layer.shape[1]
        row = np.random.default_rng(0).normal(0, 1, (channels, 5, 5)).astype(np.float32)
        patches = _patches(layer, row, np.random.default_rng(0))
        weight = layer.view(value_of(graph.weights[layer.weight]))
        products = patches @ weight.reshape(layer.groups, -1, patches.shape[2]).transpose(0, 2, 1)
        padded = np.pad(row, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        grouped = windows.reshape(layer.groups, -1, 25, 9).transpose(0, 2, 1, 3).reshape(layer.groups, 25, -1)
        expected = grouped @ weight.reshape(layer.groups, -1, patches.shape[2]).transpose(0, 2, 1)
        distance = np.abs(products[:, :, None] - expected[:, None]).max(axis=(0, 3))
        assert distance.min(axis=1).max() < 1e-4  # every patch is one of the convolution's


WIDE = """
<ir_version: 8, opset_import: ["" : 17]>
wide (float[1,300,4,4] image) => (float[1,6,4,4] out)
{
    made = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (image, w1)
    moved = ConvTranspose <kernel_shape=[1,1]> (made, w2)
    out = Conv <kernel_shape=[1,1]> (moved, w3)
}
"""


def test_a_large_layer_is_rounded_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.export.int8.adaround.MAX_WEIGHTS", 4000)  # some outputs at a time, too
    random, model = np.random.default_rng(0), onnx.parser.parse_model(WIDE)
    for name, shape in {"w1": (8, 300, 3, 3), "w2": (8, 6, 1, 1), "w3": (6, 6, 1, 1)}.items():
        value = random.normal(0, 0.1, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    path = tmp_path / "wide.onnx"
    onnx.save(model, str(path))
    mixing = random.normal(0, 1, (300, 20)) @ random.normal(0, 1, (20, 300))  # channels are correlated
    images = np.einsum("oc,nchw->nohw", mixing, random.normal(0, 1, (6, 300, 4, 4))).astype(np.float32) / 100
    ranges = calibrate(path, images, None, method="minmax")
    options: Any = {"target": "openvino", "images": images, "rounding": "adaround"}
    _, report = quantize(path, ranges, tmp_path / "int8.onnx", **options)
    assert blocks_of(300, 9) == 5
    assert report.rounding["made"] < 0.8  # summed within blocks
    assert report.nearest == ("moved",)
    assert "rounded to nearest, as adaround cannot see their inputs: moved" in report.describe()
    weight = onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "w1"))
    quantized = onnx.load(str(tmp_path / "int8.onnx"))
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    found = stored["w1_0_quantized"] * stored["w1_0_scale"].reshape(-1, 1, 1, 1)
    patches = np.lib.stride_tricks.sliding_window_view(np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    steps = stored["w1_0_scale"].reshape(-1, 1, 1, 1)
    errors = [
        np.square(np.einsum("nchwyx,ocyx->nohw", patches, w - weight)).sum()
        for w in (found, np.rint(weight / steps) * steps)
    ]
    assert errors[0] < 0.9 * errors[1]  # of the whole layer, blocks' correlation included


def test_a_network_gets_nearer_to_float(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None, method="minmax")
    options: Any = {"target": "tensorrt", "images": rows}
    nearest, _ = quantize(path, ranges, tmp_path / "nearest.onnx", form="qdq", **options)
    adaptive, report = quantize(path, ranges, tmp_path / "adaptive.onnx", form="qdq", rounding="adaround", **options)
    assert set(report.rounding) == {"stem", "depthwise", "point", "logits"}
    assert all(share <= 1 for share in report.rounding.values())
    assert min(report.rounding.values()) < 0.8
    assert output_sqnr_db(path, adaptive, rows) > output_sqnr_db(path, nearest, rows) - 0.5
