"""INT8 graphs against the float graph they were made from, and against the parser and builder that will read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.errors import CalibrationError, UnknownNameError, UsageError
from eightfold.export.int8.quantize import quantize
from eightfold.export.targets import TARGETS

ModelMaker = Callable[..., Path]


def run(path: Path, batch: Any) -> Any:
    options = onnxruntime.SessionOptions()
    # Higher levels merge Q/DQ nodes; this is the file's own meaning.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": batch})[0]


@pytest.mark.parametrize("target", sorted(name for name, target in TARGETS.items() if not target.refusal))
def test_every_target_stays_near_float(residual_net: ModelMaker, rows: Any, tmp_path: Path, target: str) -> None:
    path = residual_net(batch=4)
    ranges = calibrate(path, rows, None, method="minmax")
    output, report = quantize(path, ranges, tmp_path / "int8.onnx", form="qdq", target=target)
    expected, found = run(path, rows[:4]), run(output, rows[:4])
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    assert len(report.quantized) >= 5
    assert not report.kept_float


def test_the_same_inputs_give_the_same_bytes(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None, method="entropy")
    first, second = (quantize(path, ranges, tmp_path / f"{i}.onnx", form="qdq")[0].read_bytes() for i in range(2))
    assert first == second


def test_weights_may_be_constants_and_lie_behind_identities(
    residual_net: ModelMaker, rows: Any, tmp_path: Path
) -> None:
    plain, hidden = residual_net(), tmp_path / "hidden.onnx"
    model = onnx.load(str(plain))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]]
    for place, name in enumerate(dict.fromkeys(weights)):
        tensor = tensors[name]
        model.graph.initializer.remove(tensor)
        if place % 2:
            added = model.graph.initializer.add()
            added.CopyFrom(tensor)
            added.name = f"{name}_shared"
            model.graph.node.insert(0, onnx.helper.make_node("Identity", [added.name], [name]))
        else:
            model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
    onnx.save(model, str(hidden))
    graphs, reports = [], []
    for path in (plain, hidden):
        output, report = quantize(path, calibrate(path, rows, None), tmp_path / f"{path.stem}-int8.onnx", form="qdq")
        graphs.append(run(output, rows[:1]))
        reports.append((report.quantized, report.kept_float))
    assert reports[0] == reports[1]
    np.testing.assert_array_equal(graphs[0], graphs[1])


def test_tensorrt_form_has_signed_zero_free_pairs(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    output, _ = quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx", form="qdq", target="tensorrt:10.3")
    model = onnx.load(str(output))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeros = [values[node.input[2]] for node in model.graph.node if "QuantizeLinear" in node.op_type]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    # The branch that the sum is fused with stays float, the residual is quantized.
    (add,) = (node for node in model.graph.node if node.op_type == "Add")
    assert list(add.input) == ["point", "stem_relu_dequantized"]


@pytest.mark.parametrize("target", ["rtx:sm86", "tensorrt:8.2"])
def test_tensorrt_form_parses_and_builds(residual_net: ModelMaker, rows: Any, tmp_path: Path, target: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    path = residual_net()
    output, _ = quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx", form="qdq", target=target)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(output.read_bytes()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None


def test_a_layer_can_be_kept_in_float(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None)
    _, report = quantize(path, ranges, tmp_path / "int8.onnx", form="qdq", keep_float=["depthwise"])
    assert report.kept_float == {"depthwise": "asked to stay float"}
    with pytest.raises(UsageError, match="no node is called 'deepwise'"):
        quantize(path, ranges, tmp_path / "int8.onnx", form="qdq", keep_float=["deepwise"])


def test_ranges_of_another_network_are_refused(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    ranges = calibrate(residual_net(seed=0), rows, None)
    with pytest.raises(CalibrationError, match="the ranges belong to another network"):
        quantize(residual_net(seed=1), ranges, tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_unknown_target(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    with pytest.raises(UnknownNameError, match=r"unknown target 'cpu-risc'.*cpu-arm"):
        quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx", form="qdq", target="cpu-risc")


HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
head (float[1,3,12,12] image) => (float[1,2,4,144] found)
{
    offsets = Conv <kernel_shape=[1,1]> (image, w_box)
    logits = Conv <kernel_shape=[1,1]> (image, w_score)
    boxes = Mul (offsets, stride)
    scores = Sigmoid (logits)
    both = Concat <axis=1> (boxes, scores)
    found = Reshape (both, shape)
}
"""


def test_scores_survive_beside_boxes_in_pixels(rows: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(HEAD)
    arrays: dict[str, Any] = {
        "w_box": random.normal(0, 1, (4, 3, 1, 1)).astype(np.float32),
        "w_score": random.normal(0, 1, (4, 3, 1, 1)).astype(np.float32),
        "stride": np.array(100.0, np.float32),
        "shape": np.array([1, 2, 4, 144], np.int64),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in arrays.items())
    path = tmp_path / "head.onnx"
    onnx.save(model, str(path))
    ranges = calibrate(path, rows, None, method="minmax")
    output, report = quantize(path, ranges, tmp_path / "int8.onnx", form="qdq")
    expected, found = run(path, rows[:1])[0, 1], run(output, rows[:1])[0, 1]
    assert np.abs(found - expected).max() < 0.05  # with one scale for both halves, a step would be several units
    assert set(report.quantized) == {"offsets", "logits"}
    _, report = quantize(path, ranges, tmp_path / "int8.onnx", form="qdq", float_outputs=True)
    assert report.quantized == ()


def test_the_float_graph_is_not_overwritten(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is the float graph itself; allowed: another name for the INT8 graph"):
        quantize(path, calibrate(path, rows, None, method="minmax"), path)
    assert path.read_bytes() == before
