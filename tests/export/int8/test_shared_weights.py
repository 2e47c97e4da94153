"""Weights that several layers use: stored once in INT8 as in FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import eightfold as ef
from tests.export.int8.graphs import ROWS, answers, quantized, random, saved, sqnr_db, weights

TARGETS = ("cpu-x86", "cpu-arm", "openvino", "tensorrt")


def head_over_levels(path: Path, *, behind_identity: bool = False) -> Path:
    """One head's two convolutions on five levels of a pyramid."""
    nodes, outputs = [], {}
    source = "x"
    for level in range(5):
        nodes.append(
            helper.make_node("Conv", [source, f"w{level}"], [f"level{level}"], pads=[1] * 4, kernel_shape=[3, 3])
        )
        first, second = ("head1", "head2")
        if behind_identity and level:
            nodes += [helper.make_node("Identity", [name], [f"{name}_{level}"]) for name in ("head1", "head2")]
            first, second = f"head1_{level}", f"head2_{level}"
        nodes += [
            helper.make_node("Conv", [f"level{level}", first, "b1"], [f"a{level}"], kernel_shape=[3, 3]),
            helper.make_node("Relu", [f"a{level}"], [f"r{level}"]),
            helper.make_node("Conv", [f"r{level}", second], [f"y{level}"], kernel_shape=[1, 1]),
        ]
        outputs[f"y{level}"] = (1, 32, 6, 6)
        source = f"level{level}"
    shapes = {f"w{level}": random(32, 4 if level == 0 else 32, 3, 3, seed=level) for level in range(5)}
    constants = weights(**shapes, head1=random(32, 32, 3, 3), head2=random(32, 32, 1, 1), b1=random(32))
    return saved(path, nodes, constants, outputs)


def int8_bytes(path: Path) -> int:
    """Of weights that are int8 constants."""
    model = onnx.load(path)
    return sum(np.prod(each.dims, dtype=int) for each in model.graph.initializer if each.data_type == TensorProto.INT8)


@pytest.mark.parametrize("behind_identity", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_a_head_over_five_levels_is_stored_once(tmp_path: Path, target: str, behind_identity: bool) -> None:
    path = head_over_levels(tmp_path / "a.onnx", behind_identity=behind_identity)
    int8, report = quantized(path, target=target)
    assert len(report.quantized) == 15
    parameters = 32 * 9 * (4 + 4 * 32) + 32 * 32 * 9 + 32 * 32
    if target != "tensorrt":  # whose file holds float weights
        assert parameters <= int8_bytes(int8) <= 1.05 * parameters
        assert int8.stat().st_size < 0.5 * path.stat().st_size
    assert int8.stat().st_size < 1.2 * path.stat().st_size
    expected, found = answers(path, ROWS), answers(int8, ROWS)
    assert min(sqnr_db(expected[name], found[name]) for name in expected) > 20


def test_onnxruntime_merges_pairs_that_share_a_weight(tmp_path: Path) -> None:
    path = head_over_levels(tmp_path / "a.onnx")
    int8, _ = quantized(path, form="qoperator")
    kinds = [node.op_type for node in onnx.load(int8).graph.node]
    assert kinds.count("QLinearConv") == 15
    assert "Conv" not in kinds


class Unrolled(torch.nn.Module):
    """A recurrent cell, once per column."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cell, self.last = torch.nn.Linear(32, 256), torch.nn.GRUCell(32, 256), torch.nn.Linear(256, 10)

    def forward(self, x: Any) -> Any:
        state = self.first(x[..., 0].flatten(1))
        for column in range(x.shape[3]):
            state = self.cell(x[..., column].flatten(1), state)
        return self.last(state)


def test_an_unrolled_gru_is_smaller_in_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = ef.export_onnx(Unrolled(), tmp_path / "gru.onnx", batch=1, image_size=8, channels=4)
    int8, report = quantized(path)
    assert len(report.quantized) >= 16
    assert int8.stat().st_size < 0.6 * path.stat().st_size


def test_uses_that_need_other_scales_keep_their_own(tmp_path: Path) -> None:
    """Along another axis, as the two orientations of a tied embedding have it, or held up by a large bias."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["once"]),
        helper.make_node("Gemm", ["once", "w"], ["twice"], transB=1),
        helper.make_node("Gemm", ["twice", "w", "large"], ["y"]),
    ]
    constants = weights(w=random(4, 4), large=np.array([3e8, 1, 2, 3], np.float32))
    path = saved(tmp_path / "a.onnx", nodes, constants, {"y": (1, 4), "twice": (1, 4)})
    int8, report = quantized(path)
    assert len(report.quantized) >= 3
    expected, found = answers(path, ROWS), answers(int8, ROWS)
    assert sqnr_db(expected["twice"], found["twice"]) > 20
    assert sqnr_db(expected["y"], found["y"]) > 20
