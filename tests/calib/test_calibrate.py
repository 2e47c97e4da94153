"""The stream against an oracle that runs all images at once and keeps every activation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.image_set import ImageWarning
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.ranges import Method, Ranges, TensorRange
from eightfold.calib.session import open_runner
from eightfold.errors import CalibrationError, ImageError, UsageError
from eightfold.onnx_graph.graph import read_graph

ModelMaker = Callable[..., Path]


def all_activations(path: Path, rows: Any) -> dict[str, Any]:
    """Every intermediate tensor of a batch-1 graph, for all rows."""
    model = onnx.load(str(path))
    names = [output for node in model.graph.node for output in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run(names, {"image": row[None]}) for row in rows]
    return {"image": rows, **{name: np.concatenate([run[i] for run in runs]) for i, name in enumerate(names)}}


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_minmax_is_the_oracles(residual_net: ModelMaker, rows: Any, batch: int) -> None:
    path = residual_net()
    ranges = calibrate(path, iter(rows), None, method="minmax", batch=batch)
    oracle = all_activations(path, rows)
    assert ranges.images == 40
    for name, found in ranges.tensors.items():
        np.testing.assert_allclose([found.min, found.max], [oracle[name].min(), oracle[name].max()], atol=1e-5)


def test_activations_that_do_not_fit_at_once_are_seen_in_parts(
    residual_net: ModelMaker, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eightfold.calib.session.MAX_BYTES", 1)
    monkeypatch.setattr("eightfold.calib.session.MAX_ROW_BYTES", 20_000)
    path = residual_net()
    graph = read_graph(path)
    runner = open_runner(graph, graph.observed, rows[0])
    assert runner.rows == 1
    assert 1 < len(runner.parts) < len(graph.observed)
    oracle = all_activations(path, rows)
    for name, found in calibrate(path, iter(rows), None, method="minmax").tensors.items():
        np.testing.assert_allclose([found.min, found.max], [oracle[name].min(), oracle[name].max()], atol=1e-5)


def test_the_network_runs_once_where_the_activations_of_a_row_fit(
    residual_net: ModelMaker, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eightfold.calib.session.MAX_BYTES", 1)
    graph = read_graph(residual_net())
    runner = open_runner(graph, graph.observed, rows[0])
    assert [names for _, names in runner.parts] == [graph.observed]


def test_what_is_fused_away_is_not_watched(residual_net: ModelMaker, rows: Any) -> None:
    ranges = calibrate(residual_net(), rows, None, method="minmax")
    assert set(ranges.tensors) == {
        *("image", "stem_relu", "depthwise_relu", "point", "sum_relu", "pool", "flat", "logits")
    }
    assert ranges.tensors["pool"] == ranges.tensors["flat"]


def test_one_calibration_serves_every_batch_size(residual_net: ModelMaker, rows: Any) -> None:
    first, second = (calibrate(residual_net(batch), rows, None, method="minmax") for batch in (1, 4))
    assert first.graph == second.graph
    for name, found in first.tensors.items():
        assert found.max == pytest.approx(second.tensors[name].max, rel=1e-5)


def test_other_weights_are_another_network(residual_net: ModelMaker) -> None:
    assert read_graph(residual_net(seed=0)).digest() != read_graph(residual_net(seed=1)).digest()


def test_a_graph_that_bakes_its_batch_in_is_run_at_that_size(
    tmp_path: Path, residual_net: ModelMaker, rows: Any
) -> None:
    model = onnx.load(str(residual_net(batch=4)))
    # A constant of the batch's size cannot be freed.
    offset = np.linspace(0, 1, 4 * 8).reshape(4, 8).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(offset, "offset"))
    gemm = model.graph.node[-1]
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Add", ["flat", "offset"], ["shifted"]))
    gemm = model.graph.node[-1]
    gemm.input[0] = "shifted"
    path = tmp_path / "baked.onnx"
    onnx.save(model, str(path))
    oracle = all_activations(residual_net(), rows[:10])
    ranges = calibrate(path, rows[:10], None, method="minmax")
    assert ranges.images == 10
    assert ranges.tensors["pool"].max == pytest.approx(oracle["pool"].max(), rel=1e-5)
    shifted = oracle["flat"] + offset[np.arange(10) % 4]
    assert ranges.tensors["shifted"].max == pytest.approx(shifted.max(), rel=1e-5)


def test_images_go_through_preprocess(residual_net: ModelMaker) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)
    preprocess = Preprocess(height=12, width=12)
    ranges = calibrate(residual_net(), images, preprocess, method="minmax")
    assert ranges.preprocess == preprocess.digest()
    assert ranges.tensors["image"].max == pytest.approx(max(preprocess(image).max() for image in images))


def test_not_a_number_names_node_and_image(residual_net: ModelMaker, rows: Any) -> None:
    rows[13, 0, 0, 0] = np.inf
    with pytest.raises(CalibrationError, match=r"the input gives NaN.*for image 13"):
        calibrate(residual_net(), rows, None)
    broken = residual_net(seed=2, w3=np.full((8, 8, 1, 1), np.nan, np.float32))
    with pytest.raises(CalibrationError, match=r"node 'point' \(Conv\) gives NaN or infinite.*for image 0"):
        calibrate(broken, rows[:3], None)


def test_no_images(residual_net: ModelMaker, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images"):
        calibrate(residual_net(), iter([]), None)
    empty: tuple[Any, ...] = ([], np.zeros((0, 3, 12, 12), np.float32))
    for rows in empty:
        with pytest.raises(ImageError, match="no images to calibrate with"):
            calibrate(residual_net(), rows, None)
    with pytest.raises(ImageError, match="no images in"):
        calibrate(residual_net(), tmp_path, Preprocess(height=12, width=12))


def test_one_image_repeated_warns(residual_net: ModelMaker, rows: Any) -> None:
    with pytest.warns(ImageWarning, match="all 5 calibration images are the same"):
        calibrate(residual_net(), [rows[0]] * 5, None, method="minmax")


def test_wrong_row_shape(residual_net: ModelMaker) -> None:
    with pytest.raises(CalibrationError, match=r"image 0 gives a tensor of shape \(3, 8, 8\); allowed: \(3, 12, 12\)"):
        calibrate(residual_net(), np.zeros((2, 3, 8, 8), np.float32), None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: _set_dim(m, 2), "dynamic shape"),
        (lambda m: setattr(m.opset_import[0], "version", 11), "opset 11; allowed: opset 13"),
        (lambda m: setattr(m.graph.node[0], "op_type", "QLinearConv"), "already quantized .*QLinearConv"),
    ],
)
def test_graphs_that_cannot_be_calibrated(
    residual_net: ModelMaker, rows: Any, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    path = residual_net()
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))
    with pytest.raises(CalibrationError, match=words):
        calibrate(path, rows, None)


def _set_dim(model: onnx.ModelProto, axis: int) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "height"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "kl"}, "unknown method 'kl'"),
        ({"percentile": 30.0}, "percentile is 30"),
        ({"batch": 0}, "batch is 0"),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_wrong_options(residual_net: ModelMaker, rows: Any, options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        calibrate(residual_net(), rows, None, **options)


@pytest.mark.parametrize(("count", "warned"), [(1, True), (31, True), (32, False)])
def test_few_images_are_warned_about(residual_net: ModelMaker, count: int, warned: bool) -> None:
    images = np.random.default_rng(0).random((count, 3, 12, 12), dtype=np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert calibrate(residual_net(), images, None).images == count
    assert any(f"calibrated with {count} images; allowed: 32" in str(each.message) for each in caught) == warned


def _a_rare_peak(rng: Any) -> Any:
    rows = rng.normal(0, 1, (40, 1, 320, 320))
    rows[3, 0, 7, 7] = 300
    return rows


def _bright_images_at_last(rng: Any) -> Any:
    rows = rng.normal(0, 1, (40, 1, 64, 64))
    rows[34:] *= 100
    return rows


def _few_that_count(rng: Any) -> Any:
    return np.where(rng.random((40, 1, 64, 64)) < 0.002, 300, rng.normal(0, 1, (40, 1, 64, 64)))


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    ("method", "make"),
    [("minmax", _a_rare_peak), ("moving-average", _bright_images_at_last), ("percentile", _few_that_count)],
)
def test_ranges_far_worse_than_those_of_mse_are_told(tmp_path: Path, method: Method, make: Any, batch: int) -> None:
    rows = make(np.random.default_rng(0)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "one"], ["shifted"]),
            helper.make_node("Sin", ["shifted"], ["sine"]),
            helper.make_node("Conv", ["sine", "kernel"], ["y"]),
        ],
        "graph",
        [value("x", 1, rows[:1].shape)],
        [value("y", 1, rows[:1].shape)],
        [
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
            numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "kernel"),
        ],
    )
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    ranges = calibrate(path, rows, None, method=method, batch=batch, percentile=99.0)
    best = calibrate(path, rows, None, method="mse")
    assert not best.losses
    assert "losses" not in best.model_dump()
    values = rows.astype(np.float64).reshape(-1) + 1
    lost = 10 * np.log10(_error(values, ranges.tensors["shifted"]) / _error(values, best.tensors["shifted"]))
    assert lost > 6
    assert ranges.losses["shifted"] >= min(lost, 12) - 2  # of the types, the one that loses more
    assert f"under {method} than under mse: shifted by" in ranges.describe()
    assert Ranges.from_json(ranges.to_json()) == ranges


def _error(values: Any, found: TensorRange) -> float:
    step = (max(found.high, 0.0) - min(found.low, 0.0)) / 255
    zero = np.round(-min(found.low, 0.0) / step)
    return float(np.mean((values - (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step) ** 2))
