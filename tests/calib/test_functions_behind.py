"""Functions that readers see a tensor through, against torch's own; and ranges, against a search over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from eightfold.calib.calibrate import calibrate
from eightfold.calib.functions_behind import Readers
from eightfold.calib.ranges import Ranges
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.onnx_graph.graph import ModelGraph
from tests.export.networks import graph, saved

Floats = NDArray[np.floating[Any]]
Nodes = Sequence[tuple[str, Sequence[str], str]]  # operator, inputs, output
VALUES = np.linspace(-12, 12, 1001)


def readers(nodes: Nodes, weights: Mapping[str, Any] | None = None, outputs: Sequence[str] = ("out",)) -> Readers:
    """Of a graph that makes `t`, and `u` of the same size, by a convolution each."""
    kernel = np.ones((4, 3, 1, 1), np.float32)
    made = [
        helper.make_node("Conv", ["images", "kernel"], ["t"]),
        helper.make_node("Conv", ["images", "kernel"], ["u"]),
    ]
    made += [helper.make_node(operator, inputs, [output]) for operator, inputs, output in nodes]
    constants: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in (weights or {}).items()}
    shapes: dict[str, Sequence[int | str]] = {name: [1, 4, 2, 2] for name in outputs}
    return Readers(ModelGraph(graph(made, {"images": [1, 3, 2, 2]}, shapes, {"kernel": kernel} | constants), "test"))


@pytest.mark.parametrize(
    "function",
    [
        *(
            F.silu,
            F.gelu,
            F.mish,
            F.hardswish,
            F.hardsigmoid,
            F.elu,
            F.softplus,
            F.leaky_relu,
            torch.sigmoid,
            torch.tanh,
        ),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: x * F.relu6(x + 3) / 6,
        lambda x: 2 * torch.sigmoid(x) - 1,
    ],
)
def test_the_function_is_the_one_that_torch_computes(function: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.last(function(self.first(images)))
            return found

    model = onnx.load(export_onnx(Net(), tmp_path / "net.onnx", batch=1, image_size=8))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    found = Readers(ModelGraph(model, "test")).function(first.output[0])
    assert found is not None
    np.testing.assert_allclose(found(VALUES), function(torch.from_numpy(VALUES)).numpy(), atol=1e-5)


def test_a_move_between_changes_nothing() -> None:
    found = readers([("Flatten", ["t"], "flat"), ("Sigmoid", ["flat"], "s"), ("Reshape", ["s", "shape"], "out")])
    function = found.function("t")
    assert function is not None
    np.testing.assert_allclose(function(VALUES), 1 / (1 + np.exp(-VALUES)), atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(
            [("Relu", ["t"], "r"), ("Add", ["r", "t"], "a"), ("Conv", ["t", "k"], "out")], id="read elsewhere"
        ),
        pytest.param([("Sigmoid", ["t"], "s"), ("Mul", ["s", "u"], "out")], id="gate of another"),
        pytest.param([("Mul", ["t", "u"], "out")], id="with another"),
        pytest.param([("PRelu", ["t", "slopes"], "out")], id="one for each channel"),
        pytest.param([("Softmax", ["t"], "out")], id="of several values"),
        pytest.param(
            [("Transpose", ["t"], "m"), ("Sigmoid", ["m"], "s"), ("Mul", ["s", "m"], "out")], id="may have met"
        ),
    ],
)
def test_what_is_read_in_other_ways_has_none(nodes: Nodes) -> None:
    weights = {"slopes": np.ones((4, 1, 1)), "k": np.ones((4, 4, 1, 1))}
    if nodes[0][0] == "Sigmoid":  # the gate itself is read by the product alone
        assert readers(nodes, weights).function("s") is None
    elif nodes[0][0] != "Transpose":
        assert readers(nodes, weights).function("t") is None


def test_an_output_of_the_network_is_read_as_it_is() -> None:
    assert readers([("Sigmoid", ["t"], "out")], outputs=("out", "t")).function("t") is None
    assert readers([("Sigmoid", ["t"], "out")]).function("t") is not None


def test_mse_is_as_good_as_every_range_behind_silu(tmp_path: Path) -> None:
    """Values far below zero are many, and nothing is left of them."""
    values = np.random.default_rng(0).normal(-20, 12, (64, 1, 8, 8)).astype(np.float32)
    found = calibrated(
        tmp_path, [("Sigmoid", ["t"], "s"), ("Mul", ["t", "s"], "m"), ("Conv", ["m", "one"], "out")], values
    )
    tensor = found.tensors["t"]
    flat = values.reshape(-1).astype(np.float64)
    flat[np.argsort(flat)[len(flat) // 2]] = flat.min()

    def silu(x: Floats) -> Floats:
        found: Floats = x / (1 + np.exp(-x))
        return found

    def error(low: float, high: float, levels: int = 256) -> float:
        step = (high - low) / (levels - 1)
        zero = np.round(-low / step)
        rounded = (np.clip(np.round(flat / step) + zero, 0, levels - 1) - zero) * step
        return float(np.mean((silu(rounded) - silu(flat)) ** 2))

    shares = np.arange(2, 101, 2) / 100
    best = min(error(flat.min() * low, flat.max() * high) for low in shares for high in shares)
    assert error(tensor.low, tensor.high) <= 1.1 * best
    assert error(flat.min(), flat.max()) > 3 * best  # the test would notice
    reach = np.abs(flat).max()
    symmetric = min(error(-reach * share, reach * share, 255) for share in shares)
    assert error(-tensor.threshold, tensor.threshold, 255) <= 1.1 * symmetric


def test_what_becomes_an_output_is_not_cut_off(tmp_path: Path) -> None:
    """One large score among ten thousand small ones is what a decoder looks for."""
    values = np.random.default_rng(0).normal(0, 0.1, (40, 1, 16, 16)).astype(np.float32)
    values[7, 0, 3, 3] = 50
    nodes = [("Reshape", ["t", "shape"], "r"), ("Concat", ["r", "r"], "out")]
    found = calibrated(tmp_path, nodes, values).tensors["t"]
    assert found.high == pytest.approx(50)
    inner = calibrated(tmp_path, [("Conv", ["t", "one"], "out")], values).tensors["t"]
    assert inner.high < 50


def calibrated(folder: Path, nodes: Nodes, rows: Floats) -> Ranges:
    """Ranges by mse of a graph whose tensor `t` has the values of `rows`."""
    made = [helper.make_node("Conv", ["images", "one"], ["t"])]  # the input's own range is never cut
    made += [helper.make_node(operator, inputs, [output]) for operator, inputs, output in nodes]
    if made[-1].op_type == "Concat":
        made[-1].attribute.append(helper.make_attribute("axis", 1))
    shape: Sequence[int | str] = [1, *rows.shape[1:]]
    weights: dict[str, Any] = {"one": np.ones((1, 1, 1, 1), np.float32), "shape": np.array([1, 1, -1], np.int64)}
    outputs: dict[str, Sequence[int | str]] = {"out": [1, 2, rows[0].size] if made[-1].op_type == "Concat" else shape}
    path = saved(graph(made, {"images": shape}, outputs, weights), folder / f"net{len(nodes)}.onnx")
    return calibrate(path, iter(rows), None, method="mse")
