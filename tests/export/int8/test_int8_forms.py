"""How the CPU's INT8 graphs are written for speed: padded inputs, shared scales, Q/DQ or QOperator. Each must give the
same answer as the plain form."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.errors import UnknownNameError, UsageError
from eightfold.export.int8 import int8_speed
from eightfold.export.int8.int8_speed import Int8Speed, SlowInt8Warning, keep_the_faster, measure_int8, measures_target
from eightfold.export.int8.layer_errors import compare_layers
from eightfold.export.int8.quantize import quantize
from eightfold.export.targets import TARGETS
from eightfold.runtime.bench.timing import Interval

ModelMaker = Callable[..., Path]
UNPADDED = dataclasses.replace(TARGETS["cpu-x86"], least_channels=1)


def run(path: Path, batch: Any, *, optimized: bool = False) -> Any:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def test_a_padded_stem_gives_the_same_numbers(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None)
    padded, _ = quantize(path, ranges, tmp_path / "padded.onnx", form="qdq")
    plain, _ = quantize(path, ranges, tmp_path / "plain.onnx", target=UNPADDED, form="qdq")
    assert (operators(padded)["Pad"], operators(plain)["Pad"]) == (1, 0)
    read_by_convolutions = {
        tensor.dims[1] for tensor in onnx.load(str(padded)).graph.initializer if len(tensor.dims) == 4
    }
    assert 4 in read_by_convolutions
    np.testing.assert_array_equal(run(padded, rows[:1]), run(plain, rows[:1]))


def test_only_what_is_read_is_written(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    output, _ = quantize(path := residual_net(), calibrate(path, rows, None), tmp_path / "int8.onnx", form="qdq")
    graph = onnx.load(str(output)).graph
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert all(read.intersection(node.output) for node in graph.node)


NHWC = """
<ir_version: 8, opset_import: ["" : 17]>
nhwc (float[1,12,12,3] image) => (float[1,4,12,12] found)
{
    moved = Transpose <perm=[0,3,1,2]> (image)
    found = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (moved, w)
}
"""
JOINED = """
<ir_version: 8, opset_import: ["" : 17]>
joined (float[1,3,12,12] image) => (float[1,4,12,12] found)
{
    left = Conv <kernel_shape=[1,1]> (image, w_left)
    right = Conv <kernel_shape=[1,1]> (image, w_right)
    far = Conv <kernel_shape=[1,1]> (image, w_far)
    both = Concat <axis=1> (left, right, far)
    wide = Conv <kernel_shape=[1,1]> (both, w_both)
    beside = Conv <kernel_shape=[1,1]> (far, w_beside)
    found = Add (wide, beside)
}
"""


def saved(text: str, path: Path, **shapes: tuple[float, tuple[int, ...]]) -> Path:
    """A graph with random weights: name -> (their deviation, shape)."""
    random, model = np.random.default_rng(0), onnx.parser.parse_model(text)
    for name, (deviation, shape) in shapes.items():
        value = random.normal(0, deviation, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, str(path))
    return path


def test_nothing_is_padded_behind_a_transpose(rows: Any, tmp_path: Path) -> None:
    path = saved(NHWC, tmp_path / "nhwc.onnx", w=(1.0, (4, 3, 3, 3)))
    ranges = calibrate(path, rows.transpose(0, 2, 3, 1), None)
    output, _ = quantize(path, ranges, tmp_path / "int8.onnx", form="qdq")
    assert operators(output)["Pad"] == 0


def test_concatenated_tensors_share_a_scale_where_it_costs_little(rows: Any, tmp_path: Path) -> None:
    shapes = {"w_left": (1.0, (4, 3, 1, 1)), "w_right": (0.01, (4, 3, 1, 1)), "w_far": (0.01, (4, 3, 1, 1))}
    path = saved(JOINED, tmp_path / "joined.onnx", **shapes, w_both=(1.0, (4, 12, 1, 1)), w_beside=(1.0, (4, 4, 1, 1)))
    output, _ = quantize(path, calibrate(path, rows, None, method="minmax"), tmp_path / "int8.onnx", form="qdq")
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(output)).graph.initializer}
    assert values["left_scale"] == values["both_scale"]
    assert values["right_scale"] == values["both_scale"]  # a hundred times as wide, but nobody else reads it
    assert values["far_scale"] < values["both_scale"] / 10  # the other reader needs its bits
    expected, found = run(path, rows[:1]), run(output, rows[:1])
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_the_qoperator_form_gives_the_same_numbers(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None)
    pairs, _ = quantize(path, ranges, tmp_path / "qdq.onnx", form="qdq")
    merged, report = quantize(path, ranges, tmp_path / "qoperator.onnx", form="qoperator")
    assert report.form == "qoperator"
    assert operators(merged)["QLinearConv"] == 3
    np.testing.assert_array_equal(run(merged, rows[:1], optimized=True), run(pairs, rows[:1], optimized=True))
    # debug-int8 reads either form
    by_form = [{e.tensor: e.sqnr_db for e in compare_layers(path, file, rows[:8]).layers} for file in (pairs, merged)]
    shared = by_form[0].keys() & by_form[1].keys()
    assert {"stem_relu", "depthwise_relu"} <= shared
    assert all(abs(by_form[0][name] - by_form[1][name]) < 3 for name in shared)


def test_forms_that_do_not_exist(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path, output = residual_net(), tmp_path / "int8.onnx"
    ranges, wrong = calibrate(path, rows, None), "qlinear"
    with pytest.raises(UsageError, match="the form 'qoperator' for tensorrt:10; allowed: Q/DQ pairs there"):
        quantize(path, ranges, output, target="tensorrt", form="qoperator")
    with pytest.raises(UnknownNameError, match="unknown form 'qlinear'; allowed: fastest, qdq, qoperator"):
        quantize(path, ranges, output, form=wrong)  # type: ignore[arg-type]  # that is the point
    assert not output.exists()


def speed_of(form: Any, speedup: float) -> Int8Speed:
    times = {"fp32_ms": 2.0, "qdq_ms": 2.0 / speedup, "qoperator_ms": 2.0 / speedup}
    return Int8Speed(**times, form=form, speedup=speedup, low=speedup * 0.95, high=speedup * 1.05)


@pytest.mark.parametrize(("low", "form"), [(1.9, "qdq"), (2.15, "qdq"), (2.25, "qoperator")])
def test_qoperator_must_gain_a_tenth_beyond_doubt(
    residual_net: ModelMaker, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, low: float, form: str
) -> None:
    """OpenVINO does not read it. The pairs are twice as fast as FP32."""
    path = residual_net()
    output, _ = quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx", form="qdq")
    speeds = {"fp32": (1.0, 1.0), "qdq": (1.99, 2.0), "qoperator": (low, low + 0.1)}

    def measured(*_: Any, **__: Any) -> Any:
        found = [
            SimpleNamespace(
                name=name,
                timing=SimpleNamespace(p50_ms=2 / speed, mean_ms=2 / speed),
                speedup=Interval(value=speed, low=least, high=speed + 0.1),
            )
            for name, (least, speed) in speeds.items()
        ]
        return SimpleNamespace(rows=found)

    monkeypatch.setattr("eightfold.export.int8.int8_speed.compare_latency", measured)
    assert measure_int8(path, output).form == form


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_the_faster_form_is_kept(
    residual_net: ModelMaker, rows: Any, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = residual_net()
    output, _ = quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx", form="qdq")
    monkeypatch.setattr(int8_speed, "_measured", lambda *_: speed_of(form, 2.0))
    assert keep_the_faster(path, output, seconds=1.0).form == form
    assert ("QLinearConv" in operators(output)) == (form == "qoperator")


def test_int8_that_is_slower_is_said_aloud(
    residual_net: ModelMaker, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = residual_net()
    monkeypatch.setattr(int8_speed, "_measured", lambda *_: speed_of("qdq", 0.5))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.warns(SlowInt8Warning, match=r"INT8 is SLOWER than FP32 on this machine, 0.50 times as fast"):
        _, report = quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx")
    assert report.speed is not None
    assert report.speed.slower
    assert "keep FP32" in report.describe()


def test_only_this_machines_target_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert measures_target("cpu-x86")
    assert not measures_target("openvino")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not measures_target("cpu-x86")


@pytest.mark.skipif(not measures_target("cpu-x86"), reason="times are taken on x86 only")
def test_the_fastest_form_is_measured(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowInt8Warning)  # so small a network may well be slower
        output, report = quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx")
    assert report.speed is not None
    assert report.form == report.speed.form
    assert ("QLinearConv" in operators(output)) == (report.form == "qoperator")
    assert 0 < report.speed.low <= report.speed.speedup <= report.speed.high
