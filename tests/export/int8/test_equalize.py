"""Equalization leaves the function alone, and makes badly scaled channels quantizable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from eightfold.export.int8.equalize import EqualizeReport, GraphPair, equalize, equalize_batches
from tests.calib.conftest import residual_weights

ModelMaker = Callable[..., Path]
FACTORS = np.logspace(-2, 2, 8).astype(np.float32)


def badly_scaled() -> dict[str, Any]:
    """The same network, with the depthwise layer's channels stretched and the next layer's shrunk to match."""
    weights = residual_weights()
    return {
        "w2": weights["w2"] * FACTORS[:, None, None, None],
        "b2": weights["b2"] * FACTORS,
        "w3": weights["w3"] / FACTORS[None, :, None, None],
    }


def run(path: Path, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": row[None]})[0] for row in rows])


def names(report: EqualizeReport) -> list[tuple[set[str], set[str]]]:
    return [(set(group.made_by), set(group.read_by)) for group in report.groups]


@pytest.mark.parametrize("with_images", [False, True])
def test_the_function_stays_and_the_channels_come_together(
    residual_net: ModelMaker, rows: Any, tmp_path: Path, with_images: bool
) -> None:
    path = residual_net(**badly_scaled())
    output, report = equalize(path, tmp_path / "equal.onnx", images=rows if with_images else None)
    np.testing.assert_allclose(run(output, rows[:8]), run(path, rows[:8]), rtol=1e-3, atol=1e-4)
    (inner,) = (group for group in report.groups if group.made_by == ("depthwise",))
    assert inner.read_by == ("point",)
    assert inner.spread_before > 1e3
    assert inner.spread_after < 30
    assert "(depthwise -> point)" in report.describe()


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_layers_joined_by_a_residual_are_scaled_together(
    residual_net: ModelMaker, rows: Any, tmp_path: Path, method: Any
) -> None:
    weights = residual_weights()
    stretched = {  # the residual's channels, undone by all that read them
        "w1": weights["w1"] * FACTORS[:, None, None, None],
        "b1": weights["b1"] * FACTORS,
        "w3": weights["w3"] * FACTORS[:, None, None, None],
        "b3": weights["b3"] * FACTORS,
        "w2": weights["w2"] / FACTORS[:, None, None, None],
        "w4": weights["w4"] / FACTORS,
    }
    plain, path = run(residual_net(), rows[:8]), residual_net(**stretched)
    np.testing.assert_allclose(run(path, rows[:8]), plain, rtol=1e-3, atol=1e-4)
    output, report = equalize(path, tmp_path / "equal.onnx", images=rows, method=method)
    np.testing.assert_allclose(run(output, rows[:8]), plain, rtol=1e-3, atol=1e-4)
    assert ({"stem", "point"}, {"depthwise", "logits"}) in names(report)
    joined = next(group for group in report.groups if len(group.made_by) == 2)
    assert joined.spread_before > 1e3
    assert joined.spread_after < 30


def clipped(path: Path, bound: float, *, as_nodes: bool = False) -> Path:
    """The net with ReLU6-like clips behind the depthwise layer; their bounds are constants of either kind."""
    model = onnx.load(str(path))
    (node,) = (node for node in model.graph.node if node.output[0] == "depthwise_relu")
    node.op_type = "Clip"
    node.input.extend(["zero", "bound"])
    for name, value in (("zero", 0.0), ("bound", bound)):
        tensor = onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        if as_nodes:
            model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
        else:
            model.graph.initializer.append(tensor)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("as_nodes", [False, True])
def test_a_clip_that_clips_is_left_alone(residual_net: ModelMaker, rows: Any, tmp_path: Path, as_nodes: bool) -> None:
    path = clipped(residual_net(), 0.5, as_nodes=as_nodes)
    output, report = equalize(path, tmp_path / "equal.onnx", images=rows)
    assert report.skipped["depthwise"] == "its clip at 0.5 is reached"
    assert "left alone, its clip at 0.5 is reached: depthwise" in report.describe()
    np.testing.assert_allclose(run(output, rows), run(path, rows), rtol=1e-3, atol=1e-4)
    _, report = equalize(path, tmp_path / "equal.onnx")
    assert report.skipped["depthwise"].endswith("no images tell whether that is reached")


def test_a_clip_that_nothing_reaches_becomes_a_relu(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = clipped(residual_net(**badly_scaled()), 1e6)
    output, report = equalize(path, tmp_path / "equal.onnx", images=rows)
    assert report.clips == ("depthwise_relu",)
    assert not {"zero", "bound"} & {tensor.name for tensor in onnx.load(str(output)).graph.initializer}
    assert ({"depthwise"}, {"point"}) in names(report)
    np.testing.assert_allclose(run(output, rows), run(path, rows), rtol=1e-3, atol=1e-4)


NORMED = """
<ir_version: 8, opset_import: ["" : 17]>
normed (float[1,3,12,12] image) => (float[1,4,12,12] found)
{
    first = Conv <kernel_shape=[1,1]> (image, w1)
    normed = BatchNormalization (first, gamma, beta, mean, variance)
    active = Relu (normed)
    gate = Sigmoid (active)
    found = Conv <kernel_shape=[1,1]> (active, w2)
    spare = Conv <kernel_shape=[1,1]> (gate, w3)
}
"""


def test_what_does_not_hand_factors_through_is_named(rows: Any, tmp_path: Path) -> None:
    random, model = np.random.default_rng(0), onnx.parser.parse_model(NORMED)
    shapes: dict[str, tuple[int, ...]] = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1)}
    shapes |= dict.fromkeys(("gamma", "beta", "mean", "variance"), (4,))
    for name, shape in shapes.items():
        value = np.abs(random.normal(1, 0.1, shape)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, str(tmp_path / "normed.onnx"))
    _, report = equalize(tmp_path / "normed.onnx", tmp_path / "equal.onnx")
    assert report.skipped["normed"] == "gate (Sigmoid) does not hand factors through"  # the norm is folded
    assert report.skipped["found"] == "it is an output of the graph"
    assert report.groups == ()


def test_a_dead_channel_stays_dead(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    weights = residual_weights()
    weights["w2"][3] = 0
    weights["b2"][3] = 0
    path = residual_net(w2=weights["w2"], b2=weights["b2"])
    output, _ = equalize(path, tmp_path / "equal.onnx")
    np.testing.assert_allclose(run(output, rows[:4]), run(path, rows[:4]), rtol=1e-3, atol=1e-5)


def test_images_of_an_iterator_are_seen_once_and_compared(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net(**badly_scaled())
    known, wanted = equalize(path, tmp_path / "a.onnx", images=list(rows))
    seen, report = equalize(path, tmp_path / "b.onnx", images=iter(rows))
    assert seen.read_bytes() == known.read_bytes()
    assert report.steps[0].notes == wanted.steps[0].notes
    assert report.steps[0].notes[0].startswith("on 16 images: ")


def test_other_batches_and_sizes_get_the_same_weights(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    paths = [residual_net(batch, 0, side, **badly_scaled()) for batch, side in ((1, 12), (4, 12), (1, 8))]
    pairs = [GraphPair(path, tmp_path / f"equal{place}.onnx") for place, path in enumerate(paths)]
    report = equalize_batches(pairs)
    weights = [{each.name: each.raw_data for each in onnx.load(pair.output).graph.initializer} for pair in pairs]
    for name in ("w1", "b1", "w2", "b2", "w3", "b3", "w4"):
        assert weights[0][name] == weights[1][name] == weights[2][name]
    assert len(report.steps) == 3
    assert all(step.max_rel_error is not None and step.max_rel_error < 1e-4 for step in report.steps)


def test_a_file_may_take_its_own_place(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    path = residual_net(**badly_scaled())
    plain = run(path, rows[:4])
    equalize(path, path, images=rows)
    np.testing.assert_allclose(run(path, rows[:4]), plain, rtol=1e-3, atol=1e-4)
