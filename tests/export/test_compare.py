from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from eightfold.errors import UsageError
from eightfold.export.compare import compare_artifacts, plot_comparison
from eightfold.export.onnx_export import export_onnx
from tests.export.networks import graph, saved, small_net


def _chain(path: Path, scale: float, size: int = 3) -> Path:
    nodes = [
        helper.make_node("Relu", ["images"], ["rectified"], name="relu"),
        helper.make_node("Mul", ["rectified", "scale"], ["scaled"], name="mul"),
        helper.make_node("Tanh", ["scaled"], ["out"], name="tanh"),
    ]
    weights = {"scale": np.array([scale], np.float32)}
    return saved(graph(nodes, {"images": [2, size]}, {"out": [2, size]}, weights), path)


def test_layers_come_in_order_and_show_where_it_starts(tmp_path: Path) -> None:
    comparison = compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.6))
    assert [(layer.node, layer.difference.tensor) for layer in comparison.layers] == [
        ("relu", "rectified"),
        ("mul", "scaled"),
    ]
    assert comparison.layers[0].difference.max_abs_error == 0
    assert comparison.layers[1].difference.max_rel_error == pytest.approx(0.2, rel=1e-3)
    assert comparison.outputs[0].max_abs_error > 0


def test_the_table_can_be_cut_to_the_worst(tmp_path: Path) -> None:
    comparison = compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", -0.6))
    shown = comparison.describe(worst=1)
    assert "scaled" in shown
    assert "rectified" not in shown
    assert "out" in shown


def test_a_module_against_its_file(tmp_path: Path) -> None:
    net = small_net()
    comparison = compare_artifacts(net, export_onnx(net, tmp_path / "net.onnx", batch=1, image_size=16))
    assert comparison.outputs[0].max_rel_error < 1e-5


def test_the_plot_is_a_file(tmp_path: Path) -> None:
    comparison = compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.6))
    assert plot_comparison(comparison, tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_different_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allowed: two networks with the same inputs"):
        compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.5, size=4))
