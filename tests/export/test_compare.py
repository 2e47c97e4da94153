from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import BackendError, UsageError
from eightfold.export.compare import compare_artifacts
from eightfold.export.comparison_plot import plot_comparison
from eightfold.export.foreign import export_bundle
from eightfold.export.half import half_onnx
from eightfold.export.onnx_export import export_onnx
from eightfold.export.openvino_build import build_openvino
from eightfold.export.tensorrt.build import build_engine
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
    assert [(layer.op_type, layer.tensor, layer.other) for layer in comparison.layers] == [
        ("Relu", "rectified", "rectified"),
        ("Mul", "scaled", "scaled"),
    ]
    rectified, scaled = (layer.difference for layer in comparison.layers)
    assert rectified is not None
    assert rectified.max_abs_error == 0
    assert scaled is not None
    assert scaled.max_rel_error == pytest.approx(0.2, rel=1e-3)
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
    with pytest.raises(
        UsageError, match=r"takes images 2x3, .* takes images 2x4; allowed: two networks with the same inputs"
    ):
        compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.5, size=4))


def test_two_modules(tmp_path: Path) -> None:
    same = compare_artifacts(small_net(), small_net(), image_shape=(2, 3, 16, 16))
    assert same.outputs[0].max_abs_error == 0
    assert compare_artifacts(small_net(), small_net(seed=1), image_shape=(1, 3, 16, 16)).outputs[0].max_abs_error > 0


def test_a_graph_against_its_openvino_form(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    comparison = compare_artifacts(file, build_openvino(file, tmp_path / "net.xml"))
    assert comparison.outputs[0].max_rel_error < 1e-4


def test_a_bfloat16_graph_that_onnxruntime_does_not_run(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    half = half_onnx(file, tmp_path / "half.onnx", kind="bfloat16")
    assert compare_artifacts(file, half).outputs[0].cosine > 0.99


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="engines run here")
def test_an_engine_where_no_gpu_is(tmp_path: Path) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    engine = build_engine(file, tmp_path / "net.engine", precision="fp32")
    with pytest.raises(BackendError, match=r"runs with tensorrt-rtx only, .*; run this on the device"):
        compare_artifacts(file, engine)


def test_a_bundle_by_its_artifact(tmp_path: Path) -> None:
    preprocess = Preprocess(height=16, width=16)
    bundle = export_bundle(small_net(), tmp_path / "net.eightfold", preprocess=preprocess, batches=(1, 2), name="net")
    assert compare_artifacts(f"{bundle}:net-b2", small_net()).outputs[0].max_rel_error < 1e-5
    assert compare_artifacts(f"{bundle}:net-b2", f"{bundle}:net-b2").layers
    with pytest.raises(UsageError, match=r"holds 2 artifacts; allowed: .*:net-b1 or .*:net-b2"):
        compare_artifacts(small_net(), bundle)
    one = export_bundle(small_net(), tmp_path / "one", preprocess=preprocess, name="net")
    assert compare_artifacts(one, small_net()).outputs[0].max_rel_error < 1e-5


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no nothing; allowed: a file ending in \.onnx"):
        compare_artifacts("nothing", "nothing")
    with pytest.raises(UsageError, match=r"there is no file .*x\.onnx"):
        compare_artifacts(tmp_path / "x.onnx", tmp_path / "x.onnx")
