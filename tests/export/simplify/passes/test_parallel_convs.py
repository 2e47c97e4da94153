from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from tests.export.networks import graph
from tests.export.simplify.passes.oracle import operators_after

CHANNELS, SIDE = 6, 8
Weights = dict[str, NDArray[np.generic]]


def _conv(name: str, kernel: Sequence[int], weights: Weights, group: int, stride: int) -> onnx.NodeProto:
    rng = np.random.default_rng(len(weights))
    weights[f"{name}.w"] = rng.standard_normal((CHANNELS, CHANNELS // group, *kernel), dtype=np.float32)
    weights[f"{name}.b"] = rng.standard_normal(CHANNELS, dtype=np.float32)
    pads, strides = [side // 2 for side in kernel] * 2, [stride] * len(kernel)
    reads = ["images", f"{name}.w", f"{name}.b"]
    return helper.make_node("Conv", reads, [name], pads=pads, strides=strides, group=group)


def _norm(name: str, weights: Weights) -> onnx.NodeProto:
    names = [f"{name}.{part}" for part in ("scale", "shift", "mean", "var")]
    rng = np.random.default_rng(len(weights))
    weights |= {each: rng.random(CHANNELS, dtype=np.float32) + 0.5 for each in names}
    return helper.make_node("BatchNormalization", ["images", *names], [name])


def _sum(*branches: Sequence[int] | str, group: int = 1, stride: int = 1) -> tuple[onnx.ModelProto, list[int]]:
    """Branches of one tensor, added from left to right: kernels of convolutions, "norm", or "images" as they are."""
    weights: Weights = {}
    nodes, names = [], []
    for place, branch in enumerate(branches):
        names.append(branch if branch == "images" else f"branch{place}")
        if branch == "norm":
            nodes.append(_norm(names[-1], weights))
        elif not isinstance(branch, str):
            nodes.append(_conv(names[-1], branch, weights, group, stride))
    left = names[0]
    for place, name in enumerate(names[1:]):
        total = "out" if place == len(names) - 2 else f"sum{place}"
        nodes.append(helper.make_node("Add", [left, name], [total]))
        left = total
    rank = next(len(branch) for branch in branches if not isinstance(branch, str))
    shape: list[int] = [2, CHANNELS, *[SIDE] * rank]
    outputs: dict[str, Sequence[int | str]] = {"out": [2, CHANNELS, *[SIDE // stride] * rank]}
    return graph(nodes, {"images": [*shape]}, outputs, weights), shape


@pytest.mark.parametrize("group", [1, 2, CHANNELS])
@pytest.mark.parametrize(
    "branches",
    [
        ((3, 3), (1, 1)),
        ((1, 1), (3, 3)),
        ((3, 3), (3, 3), (5, 5)),
        ((3, 3), "images"),
        ("images", (1, 1)),
        ((3, 3), "norm"),
        ("norm", (1, 1), (3, 3), "images"),
        ((3, 3), (1, 3), (3, 1)),
        ((3,), (1,), "norm"),
        ((3, 3, 3), (1, 1, 1), "images"),
    ],
)
def test_branches_of_one_tensor_become_one_convolution(branches: tuple[Sequence[int] | str, ...], group: int) -> None:
    model, shape = _sum(*branches, group=group)
    assert operators_after(model, shape) == ["Conv"]


def test_strided_branches_become_one_convolution() -> None:
    model, shape = _sum((3, 3), (1, 1), stride=2)
    assert operators_after(model, shape) == ["Conv"]


def test_a_norm_behind_the_sum_goes_in_too() -> None:
    model, shape = _sum((3, 3), (1, 1), "images")
    weights: Weights = {}
    norm = _norm("normed", weights)
    norm.input[0] = "out"
    model.graph.node.append(norm)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model.graph.output[0].name = "normed"
    assert operators_after(model, shape) == ["Conv"]


@pytest.mark.parametrize("branches", [((1, 3), (3, 1)), ((5, 1), (3, 3))])
def test_kernels_of_which_neither_holds_the_other_stay(branches: tuple[Sequence[int], ...]) -> None:
    model, shape = _sum(*branches)
    assert operators_after(model, shape) == ["Conv", "Conv", "Add"]


def _changed(change: str) -> tuple[onnx.ModelProto, list[int]]:
    model, shape = _sum((3, 3), (1, 1))
    small = model.graph.node[1]
    if change == "dilated":
        small.attribute.append(helper.make_attribute("dilations", [2, 2]))
    elif change == "other tensor":
        model.graph.node.insert(0, helper.make_node("Relu", ["images"], ["positive"]))
        small.input[0] = "positive"
    elif change == "read by others":
        model.graph.output.append(helper.make_tensor_value_info("branch1", 1, shape))
    elif change == "computed weight":
        model.graph.node.insert(0, helper.make_node("Relu", ["branch1.w"], ["positive"]))
        model.graph.node.insert(0, helper.make_node("ReduceMax", ["images"], ["largest"]))
        model.graph.node.insert(2, helper.make_node("Mul", ["positive", "largest"], ["computed"]))
        small.input[1] = "computed"
    return model, shape


@pytest.mark.parametrize("change", ["dilated", "other tensor", "read by others", "computed weight"])
def test_what_is_not_the_same_convolution_stays(change: str) -> None:
    model, shape = _changed(change)
    assert operators_after(model, shape).count("Conv") == 2


def test_a_broadcast_of_one_channel_keeps_its_meaning() -> None:
    weights: Weights = {"w": np.ones((CHANNELS, 1, 3, 3), np.float32)}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "images"], ["out"]),
    ]
    model = graph(nodes, {"images": [1, 1, 4, 4]}, {"out": [1, CHANNELS, 4, 4]}, weights)
    assert operators_after(model, (1, 1, 4, 4)) == ["Conv", "Add"]
