"""Names that `quantize` would make, which the graph has already; constants and tensors that inner graphs read."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from eightfold.export.int8.layer_errors import compare_layers
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.names import FreeNames, all_names
from tests.export.int8.graphs import ROWS, answers, quantized, random, saved, sqnr_db, weights

TARGETS = ("cpu-x86", "cpu-arm", "openvino", "tensorrt", "tensorrt-dla")
SUFFIXES = (
    *("scale", "zero", "quantized", "dequantized", "raw", "padded_quantized", "padded_sizes", "padded_dequantized"),
    *("weight", "bias", "0_scale", "0_quantized", "0_dequantized", "0_zero", "corrected_bias"),
)


def conv(source: str, weight: str, output: str, *, bias: str = "", name: str = "") -> onnx.NodeProto:
    inputs = [source, weight, bias] if bias else [source, weight]
    return helper.make_node("Conv", inputs, [output], name=name or output, pads=[1, 1, 1, 1], kernel_shape=[3, 3])


@pytest.mark.parametrize(("subject", "suffix"), list(product(["x", "conv1", "w1"], SUFFIXES)))
def test_a_tensor_of_a_name_that_we_would_make(tmp_path: Path, subject: str, suffix: str) -> None:
    """As a constant that a Mul reads, and as what the Mul gives: Caffe's `conv1_scale`."""
    taken = f"{subject}_{suffix}"
    nodes = [
        conv("x", "w1", "conv1", bias="b1"),
        helper.make_node("Mul", ["conv1", f"{taken}_1"], [taken]),
        conv(taken, "w2", "conv2a"),
        helper.make_node("BatchNormalization", ["conv2a", "g", "b", "m", "v"], ["normed"]),
        helper.make_node("Relu", ["normed"], ["relu"]),
        conv("relu", "w3", "conv2"),
    ]
    constants = weights(
        **{f"{taken}_1": random(1, 8, 1, 1, seed=4)},
        w1=random(8, 4, 3, 3),
        b1=random(8),
        w2=random(8, 8, 3, 3, seed=1),
        w3=random(8, 8, 3, 3, seed=2),
        g=abs(random(8)) + 1,
        b=random(8),
        m=random(8),
        v=abs(random(8)) + 1,
    )
    path = saved(tmp_path / "a.onnx", nodes, constants, {"conv2": (1, 8, 8, 8)})
    int8, report = quantized(path, bias_correction="analytic")
    assert len(report.quantized) >= 3
    assert sqnr_db(answers(path, ROWS)["conv2"], answers(int8, ROWS)["conv2"]) > 20
    errors = {each.tensor: each.sqnr_db for each in compare_layers(path, int8, ROWS[:4]).layers}
    assert errors["conv2"] > 20
    assert min(errors.values()) > 15  # each tensor is compared with its own form


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("taken", ["x_quantized", "conv1_dequantized", "conv1_scale", "w1_0_scale"])
def test_for_every_target(tmp_path: Path, target: str, taken: str) -> None:
    nodes = [
        conv("x", "w1", "conv1"),
        helper.make_node("Relu", ["conv1"], [taken]),
        conv(taken, "w2", "conv2"),
    ]
    constants = weights(w1=random(16, 4, 3, 3), w2=random(16, 16, 3, 3, seed=1))
    path = saved(tmp_path / "a.onnx", nodes, constants, {"conv2": (1, 16, 8, 8)})
    int8, report = quantized(path, target=target)
    assert report.quantized
    assert sqnr_db(answers(path, ROWS)["conv2"], answers(int8, ROWS)["conv2"]) > 20


def branches(condition: str, source: str, inner_constant: str, shared: str, output: str) -> onnx.NodeProto:
    """An If whose bodies read a constant of the graph around them, as torch's conditional squeeze does."""
    made = helper.make_tensor_value_info(f"{output}_inner", TensorProto.FLOAT, None)
    other = helper.make_tensor_value_info(f"{output}_other", TensorProto.FLOAT, None)
    then = helper.make_graph(
        [helper.make_node("Add", [source, inner_constant], [made.name])], f"{output}_then", [], [made]
    )
    els = helper.make_graph([helper.make_node("Mul", [source, shared], [other.name])], f"{output}_else", [], [other])
    return helper.make_node("If", [condition], [output], then_branch=then, else_branch=els)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("taken", [True, False])
def test_constants_of_the_bodies_of_if(tmp_path: Path, target: str, form: Any, taken: bool) -> None:
    if form == "qoperator" and not target.startswith("cpu"):
        pytest.skip("Q/DQ pairs only")
    nodes = [
        conv("x", "w1", "conv1"),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        branches("flag", "relu1", "only_inside", "shared", "chosen"),
        helper.make_node("Mul", ["relu1", "shared"], ["scaled"]),
        helper.make_node("Add", ["chosen", "scaled"], ["sum"]),
        conv("sum", "w2", "conv2"),
    ]
    constants = weights(
        w1=random(16, 4, 3, 3),
        w2=random(16, 16, 3, 3, seed=1),
        only_inside=random(1, 16, 1, 1),
        shared=random(1, 16, 1, 1, seed=3),
        flag=taken,
    )
    path = saved(tmp_path / "a.onnx", nodes, constants, {"conv2": (1, 16, 8, 8)})
    int8, report = quantized(path, target=target, form=form)
    assert len(report.quantized) >= 2
    assert sqnr_db(answers(path, ROWS)["conv2"], answers(int8, ROWS)["conv2"]) > 20


@pytest.mark.parametrize("operator", ["Loop", "Scan"])
def test_constants_of_the_bodies_of_loops(tmp_path: Path, operator: str) -> None:
    nodes = [conv("x", "w1", "conv1"), _loop("conv1") if operator == "Loop" else _scan("conv1")]
    nodes.append(conv("looped", "w2", "conv2"))
    constants = weights(
        w1=random(16, 4, 3, 3), w2=random(16, 16, 3, 3, seed=1), gain=random(16, 1, 1), trips=[2], go=True
    )
    path = saved(tmp_path / "a.onnx", nodes, constants, {"conv2": (1, 16, 8, 8)})
    int8, report = quantized(path)
    assert len(report.quantized) == 2
    assert sqnr_db(answers(path, ROWS)["conv2"], answers(int8, ROWS)["conv2"]) > 20


def _loop(source: str) -> onnx.NodeProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["still"]),
            helper.make_node("Add", ["state", "gain"], ["grown"]),
        ],
        "body",
        [
            info("turn", TensorProto.INT64, []),
            info("more", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, None),
        ],
        [info("still", TensorProto.BOOL, []), info("grown", TensorProto.FLOAT, None)],
    )
    return helper.make_node("Loop", ["trips", "go", source], ["looped"], body=body)


def _scan(source: str) -> onnx.NodeProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["slice", "gain"], ["grown"])],
        "body",
        [info("slice", TensorProto.FLOAT, None)],
        [info("grown", TensorProto.FLOAT, None)],
    )
    return helper.make_node("Scan", [source], ["looped"], body=body, num_scan_inputs=1)


def test_a_batch_norm_whose_source_a_body_reads_is_not_folded(tmp_path: Path) -> None:
    nodes = [
        conv("x", "w1", "conv1"),
        helper.make_node("BatchNormalization", ["conv1", "g", "b", "m", "v"], ["normed"]),
        branches("flag", "conv1", "only_inside", "g1", "chosen"),
        helper.make_node("Add", ["chosen", "normed"], ["sum"]),
        conv("sum", "w2", "conv2"),
    ]
    constants = weights(
        w1=random(16, 4, 3, 3),
        w2=random(16, 16, 3, 3, seed=1),
        g=abs(random(16)) + 2,
        b=random(16),
        m=random(16),
        v=abs(random(16)) + 1,
        only_inside=random(1, 16, 1, 1),
        g1=random(1, 16, 1, 1),
        flag=True,
    )
    path = saved(tmp_path / "a.onnx", nodes, constants, {"conv2": (1, 16, 8, 8)})
    int8, _ = quantized(path)
    assert sqnr_db(answers(path, ROWS)["conv2"], answers(int8, ROWS)["conv2"]) > 20


def test_an_input_that_is_an_output_too(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.onnx",
        [conv("x", "w", "y")],
        weights(w=random(16, 4, 3, 3)),
        {"y": (1, 16, 8, 8), "x": (1, 4, 8, 8)},
    )
    int8, _ = quantized(path)
    found = answers(int8, ROWS)
    assert (found["x"][:, 0] == ROWS).all()
    assert sqnr_db(answers(path, ROWS)["y"], found["y"]) > 20


def test_free_names_know_inner_graphs_and_what_they_gave() -> None:
    graph = helper.make_graph([branches("flag", "x", "a", "b", "y")], "graph", [], [])
    names = FreeNames(all_names(graph))
    assert [names.free("y_inner"), names.free("y_inner"), names.free("new"), names.free("new")] == [
        *("y_inner_1", "y_inner_2", "new", "new_1")
    ]
    assert {"flag", "x", "a", "b", "y", "y_inner", "y_other"} <= set(all_names(graph))
    assert GraphIndex(graph).free("y_other") == "y_other_1"
