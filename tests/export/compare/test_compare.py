from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError, ModelError, UsageError, VerificationError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.compare.compare import compare_artifacts
from eightfold.export.compare.comparison import ComparedLayer, Comparison
from eightfold.export.compare.comparison_plot import plot_comparison, require_plot_format
from eightfold.export.compare.runnables import runnable_of
from eightfold.export.fp16.fp16 import half_onnx
from eightfold.export.int8.quantize import quantize
from eightfold.export.openvino.openvino_build import build_openvino
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import Difference, Tolerance
from tests.export.networks import SmallNet, graph, images, saved, small_net

RANDOM = "on random inputs, where networks may differ more or less than on images: give --images"


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


def test_layers_that_are_alike_are_counted_and_listed_on_request(tmp_path: Path) -> None:
    comparison = compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.6))
    assert not comparison.exact
    assert "\nrectified" not in comparison.describe(worst=20)
    assert "further layers, exactly alike: 1" in comparison.describe(worst=20)
    assert "\nrectified" in comparison.describe()


def test_two_that_are_the_same_are_a_line(tmp_path: Path) -> None:
    comparison = compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.5))
    names = f"{tmp_path / 'a.onnx'} against {tmp_path / 'b.onnx'}"
    assert comparison.describe(worst=20) == f"{names}: 1 output and 2 layers exactly alike\n{RANDOM}"
    assert len(comparison.describe().splitlines()) == 7


def test_names_are_cut_to_the_width_of_the_terminal() -> None:
    name = "/model/features/features.12/conv/conv.1/Conv_output_0"
    far = Difference(tensor=name, max_abs_error=1, max_rel_error=0.5, cosine=0.5)
    layer = ComparedLayer(tensor=name, op_type="Conv", other=name[1:], difference=far)
    comparison = Comparison(first="a", second="b", outputs=(far,), layers=(layer,), first_beyond="x", limit="y")
    widest = [max(map(len, comparison.describe(width=width).splitlines())) for width in (None, 100, 80)]
    assert widest[0] > 100 >= widest[1] > 80 >= widest[2]
    assert "conv/conv.1/Conv_output_0" in comparison.describe(width=100)


def test_a_module_against_its_file(tmp_path: Path) -> None:
    net = small_net()
    comparison = compare_artifacts(net, export_onnx(net, tmp_path / "net.onnx", batch=1, image_size=16))
    assert comparison.outputs[0].max_rel_error < 1e-5
    found = {layer.tensor: layer.difference for layer in comparison.layers}
    assert list(found) == ["stem.0", "stem.1", "stem.2", "depthwise", "relu", "add", "mean"]
    assert [name for name, seen in found.items() if seen is None] == ["stem.0"]  # folded with its batch norm
    assert all(seen.max_rel_error < 1e-5 for seen in found.values() if seen is not None)
    assert comparison.first_beyond == ""
    assert "folded into what follows: stem.0\n" in comparison.describe()


def test_the_layer_where_two_networks_part_is_told(tmp_path: Path) -> None:
    net, other = small_net(), small_net()
    file = export_onnx(net, tmp_path / "net.onnx", batch=1, image_size=16)
    torch.nn.init.normal_(other.depthwise.weight, std=3)
    comparison = compare_artifacts(other, file)
    assert comparison.first_beyond == "depthwise"
    assert "the two part at depthwise: it is beyond cosine 0.99" in comparison.describe()
    assert [layer.tensor for layer in comparison.layers if layer.parted][:1] == ["depthwise"]
    assert compare_artifacts(other, file, tolerance=Tolerance(cosine=-1)).first_beyond == ""


def test_an_int8_graph_shows_its_layers(tmp_path: Path) -> None:
    net = small_net()
    file = export_onnx(net, tmp_path / "net.onnx", batch=1, image_size=16)
    rows = images(8)
    ranges = calibrate(file, list(rows), None, method="minmax")
    for form in ("qdq", "qoperator"):
        int8, _ = quantize(file, ranges, tmp_path / f"{form}.onnx", form=form)
        comparison = compare_artifacts(net, int8, inputs={"images": rows[:1]})
        found = {layer.tensor: layer.difference for layer in comparison.layers if layer.difference is not None}
        assert {"depthwise", "add"} & set(found)
        assert all(0.98 < seen.cosine < 1 for seen in found.values())


def test_inputs_are_known_by_their_order(tmp_path: Path) -> None:
    file = _chain(tmp_path / "a.onnx", 0.5)
    model = onnx.load(file)
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    other = saved(model, tmp_path / "b.onnx")
    assert compare_artifacts(file, other).outputs[0].max_abs_error == 0


def test_wide_names_leave_the_columns_where_they_are(tmp_path: Path) -> None:
    model = onnx.load(_chain(tmp_path / "a.onnx", 0.5))
    wide = "a/very/long/path/" * 12 + "Conv_output_0"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = wide
    comparison = compare_artifacts(saved(model, tmp_path / "b.onnx"), _chain(tmp_path / "c.onnx", 0.5))
    head, *rows = comparison.describe().splitlines()[1:5]
    assert ".../long/path/a/very/long/path/Conv_output_0  Relu" in rows[0]
    assert {row[: head.index("made by")].rstrip() for row in rows} == {
        ".../long/path/a/very/long/path/Conv_output_0",
        "scaled",
        "out",
    }
    assert {len(row) for row in rows} == {len(head)}


def test_the_plot_is_a_file(tmp_path: Path) -> None:
    comparison = compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.6))
    assert plot_comparison(comparison, tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_a_plot_that_finds_no_room_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    comparison = compare_artifacts(_chain(tmp_path / "a.onnx", 0.5), _chain(tmp_path / "b.onnx", 0.6))
    (tmp_path / "plot.svg").write_text("old")
    with pytest.raises(OSError, match="No space left") as refused:
        plot_comparison(comparison, tmp_path / "plot.svg")
    assert refused.value.filename == str(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text() == "old"


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
    assert len(comparison.layers) > 3
    assert all(layer.difference and layer.difference.max_rel_error < 1e-4 for layer in comparison.layers)


def test_a_bfloat16_graph_that_onnxruntime_does_not_run(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    half = half_onnx(file, tmp_path / "half.onnx", kind="bfloat16")
    comparison = compare_artifacts(file, half)
    assert comparison.outputs[0].cosine > 0.99
    assert comparison.layers


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


def test_what_shows_no_layers_says_so(tmp_path: Path) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    engine = dataclasses.replace(runnable_of(file), name="net.engine", probe=None, silence="is an engine")
    comparison = compare_artifacts(file, engine)
    assert comparison.layers == ()
    assert comparison.describe().endswith(f"outputs only: net.engine is an engine\n{RANDOM}")
    assert plot_comparison(comparison, tmp_path / "plot.png").stat().st_size > 0


def test_text_that_is_named_onnx(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"cannot read .*a\.onnx as ONNX"):
        compare_artifacts(tmp_path / "a.onnx", tmp_path / "a.onnx")


def test_other_outputs_are_refused(tmp_path: Path) -> None:
    few = compare_artifacts(small_net(), small_net(), image_shape=(1, 3, 16, 16))
    assert few.outputs
    with pytest.raises(VerificationError, match=r"has shape \(1, 7\); allowed: \(1, 5\)"):
        compare_artifacts(small_net(), SmallNet(classes=7), image_shape=(1, 3, 16, 16))


@pytest.mark.parametrize("name", ["errors.foo", "errors", "errors.onnx"])
def test_a_plots_name_says_its_format(name: str) -> None:
    require_plot_format("errors.PNG")
    with pytest.raises(UsageError, match=rf"{name} as a plot; allowed: a name that ends in .*\.png"):
        require_plot_format(name)
