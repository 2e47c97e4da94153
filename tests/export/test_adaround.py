"""Adaptive rounding against trying every combination, and what it does to a network's outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.calib.graph import Graph, load_model
from eightfold.calib.layers import layers_of, value_of
from eightfold.export.adaround import _patches, adaptive_rounding
from eightfold.export.layer_errors import output_sqnr_db
from eightfold.export.quantize import quantize

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
    graph = Graph(load_model(residual_net()), "net")
    layers = {layer.name: layer for layer in layers_of(graph)}
    for name in ("stem", "depthwise"):
        layer = layers[name]
        channels = layer.groups * layer.shape[1]
        row = np.random.default_rng(0).normal(0, 1, (channels, 5, 5)).astype(np.float32)
        patches = _patches(layer, row, np.random.default_rng(0))
        weight = layer.view(value_of(graph.initializers[layer.weight]))
        products = patches @ weight.reshape(layer.groups, -1, patches.shape[2]).transpose(0, 2, 1)
        padded = np.pad(row, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        grouped = windows.reshape(layer.groups, -1, 25, 9).transpose(0, 2, 1, 3).reshape(layer.groups, 25, -1)
        expected = grouped @ weight.reshape(layer.groups, -1, patches.shape[2]).transpose(0, 2, 1)
        distance = np.abs(products[:, :, None] - expected[:, None]).max(axis=(0, 3))
        assert distance.min(axis=1).max() < 1e-4  # every patch is one of the convolution's


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
