from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from eightfold.export.simplify.constants import computed_constants, freeze_constants
from eightfold.export.torch.onnx_export import onnx_from_module
from eightfold.export.verify.verify import run_onnx, with_outputs
from tests.export.networks import graph

Weights = dict[str, NDArray[np.generic]]


def _frozen(model: onnx.ModelProto) -> list[str]:
    """Operators left, of a graph that must give the same answer on two inputs."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = [{"images": np.random.default_rng(seed).normal(size=shape).astype(np.float32)} for seed in range(2)]
    before = [run_onnx(model, feed) for feed in feeds]
    names, copy = computed_constants(model.graph), onnx.ModelProto()
    copy.CopyFrom(model)
    freeze_constants(model.graph, run_onnx(with_outputs(copy, names), feeds[0]) if names else {})
    onnx.checker.check_model(model, full_check=True)
    for feed, answers in zip(feeds, before, strict=True):
        for name, array in run_onnx(model, feed).items():
            np.testing.assert_array_equal(array, answers[name])
    return [node.op_type for node in model.graph.node]


def test_what_follows_from_shapes_is_worked_out() -> None:
    nodes = [
        helper.make_node("Relu", ["images"], ["a"]),
        helper.make_node("Shape", ["a"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("ConstantOfShape", ["n"], ["zeros"]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Add", ["zeros", "half"], ["halves"]),
        helper.make_node("Add", ["a", "halves"], ["out"]),
    ]
    assert _frozen(graph(nodes, {"images": [3, 3]}, {"out": [3, 3]})) == ["Relu", "Add"]


def test_a_shape_that_follows_from_values_is_not_constant() -> None:
    nodes = [
        helper.make_node("NonZero", ["images"], ["where"]),
        helper.make_node("Shape", ["where"], ["shape"]),
        helper.make_node("Add", ["shape", "one"], ["out"]),
    ]
    model = graph(nodes, {"images": [4]}, {"out": [2]}, {"one": np.array([1])})
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    assert computed_constants(model.graph) == []


def test_a_size_that_is_read_from_the_image_is_not_constant() -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["size"], to=onnx.TensorProto.INT64),
        helper.make_node("Expand", ["one", "size"], ["a"]),
        helper.make_node("Shape", ["a"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["out"], to=onnx.TensorProto.FLOAT),
    ]
    model = graph(nodes, {"images": [1]}, {"out": [1]}, {"one": np.ones(1, np.float32)})
    assert computed_constants(model.graph) == []


def test_noise_and_quantized_weights_stay() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["noise"], shape=[3]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["weight"]),
        helper.make_node("Mul", ["weight", "noise"], ["product"]),
        helper.make_node("Add", ["product", "images"], ["out"]),
    ]
    weights: Weights = {"w": np.array([1, 2, 3], np.int8), "s": np.array(0.5, np.float32)}
    model = graph(nodes, {"images": [3]}, {"out": [3]}, weights)
    assert computed_constants(model.graph) == []
    freeze_constants(model.graph, {})
    assert len(model.graph.node) == 4


def test_what_only_a_branch_reads_is_worked_out() -> None:
    then = helper.make_graph(
        [helper.make_node("Mul", ["images", "double"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, [2])]
    )
    otherwise = helper.make_graph(
        [helper.make_node("Neg", ["images"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, [2])]
    )
    nodes = [
        helper.make_node("Add", ["one", "one"], ["double"]),
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "one"], ["large"]),
        helper.make_node("If", ["large"], ["out"], then_branch=then, else_branch=otherwise),
    ]
    model = graph(nodes, {"images": [2]}, {"out": [2]}, {"one": np.array(1, np.float32)})
    assert _frozen(model) == ["ReduceSum", "Greater", "If"]


def test_a_constant_that_is_an_output_stays() -> None:
    nodes = [
        helper.make_node("Relu", ["images"], ["out"]),
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Identity", ["two"], ["again"]),
    ]
    model = graph(nodes, {"images": [2]}, {"out": [2], "again": [1]}, {"one": np.ones(1, np.float32)})
    assert _frozen(model) == ["Relu", "Identity"]


class Windows(torch.nn.Module):
    """Rolls and masks by sizes that it asks the image for, as window attention does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        rows = torch.arange(height).unsqueeze(1).expand(height, width)
        mask = (rows + torch.arange(width)).remainder(3) == 0
        rolled = images.roll((height // 3, width // 2), (2, 3))
        return torch.where(mask, rolled, images).flatten(1)


def test_masks_of_an_export_are_worked_out() -> None:
    model = onnx_from_module(Windows(), torch.rand(1, 3, 8, 8), exporter="torchscript")
    left = _frozen(model)
    assert not {"Shape", "Range", "Constant", "Expand", "Mod", "Equal"} & set(left)
