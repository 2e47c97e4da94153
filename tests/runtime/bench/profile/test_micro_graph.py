"""Graphs of single layers: valid, of the right sizes, and of the operators that a network would have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from eightfold.errors import UsageError
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import NodeTime, SessionOptions
from eightfold.runtime.backends.ort_node_times import times_in_trace
from eightfold.runtime.bench.profile.layer_shape import ACTIVATIONS, LayerShape
from eightfold.runtime.bench.profile.micro_graph import micro_graph
from eightfold.runtime.bench.profile.time_layers import layer_ms

K3 = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)}
SHAPES = [
    LayerShape.model_validate(fields)
    for fields in (
        {"kind": "conv", "size": (8, 6), **K3},
        {"kind": "conv", "size": (8, 6), "kernel": (1, 1), "residual": True, "activation": "relu"},
        {"kind": "conv", "size": (8, 6), "groups": 4, **K3},
        {"kind": "conv", "batch": 2, "size": (8, 6), "activation": "silu", **K3},
        {"kind": "conv_transpose", "size": (8, 6), "kernel": (2, 2), "stride": (2, 2)},
        {"kind": "depthwise", "size": (8, 6), "activation": "relu6", **K3},
        {"kind": "linear", "batch": 2, "size": (3,)},
        {"kind": "max_pool", "size": (8, 6), "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)},
        {"kind": "average_pool", "size": (8, 6), "kernel": (2, 2), "stride": (2, 2)},
        {"kind": "global_pool", "size": (8, 6)},
        {"kind": "add", "size": (8, 6), "parts": 2, "activation": "relu"},
        {"kind": "mul", "size": (8, 6), "parts": 2},
        {"kind": "scale", "size": (8, 6)},
        {"kind": "concat", "size": (8, 6), "parts": 3},
        {"kind": "resize", "size": (8, 6), "stride": (2, 2)},
        {"kind": "norm", "size": (8, 6), "activation": "relu"},
        *({"kind": "activation", "size": (8, 6), "activation": name} for name in ACTIVATIONS),
    )
]


@pytest.mark.parametrize("int8", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.key)
def test_a_graph_runs_and_gives_the_size_that_the_shape_says(shape: LayerShape, int8: bool, tmp_path: Path) -> None:
    path = tmp_path / "layer.onnx"
    path.write_bytes(micro_graph(shape, 8, 16, int8=int8))
    onnx.checker.check_model(str(path), full_check=True)
    slot = open_session(path, "onnxruntime", SessionOptions(threads=1, node_times=True)).new_slot()
    slot.run()
    (output,) = slot.outputs.values()
    assert output.dtype == (np.uint8 if int8 else np.float32)
    wanted = (6, 16) if shape.kind == "linear" else (shape.batch, 16, *shape.output_size())
    assert output.shape == wanted
    assert slot.node_times()


def test_a_convolution_computes_what_torch_does(tmp_path: Path) -> None:
    shape = SHAPES[0]
    data = micro_graph(shape, 8, 16)
    (tmp_path / "layer.onnx").write_bytes(data)
    slot = open_session(tmp_path / "layer.onnx", "onnxruntime").new_slot()
    (x,) = slot.inputs.values()
    np.copyto(x, np.random.default_rng(1).standard_normal(x.shape))
    slot.run()
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(data).graph.initializer}
    wanted = F.conv2d(torch.from_numpy(x), torch.from_numpy(weights["w"].copy()), stride=2, padding=1)
    assert np.allclose(next(iter(slot.outputs.values())), wanted.numpy(), atol=1e-4)


def test_an_int8_convolution_runs_on_integers(tmp_path: Path) -> None:
    path = tmp_path / "layer.onnx"
    path.write_bytes(micro_graph(SHAPES[1], 8, 16, int8=True))
    slot = open_session(path, "onnxruntime", SessionOptions(node_times=True)).new_slot()
    slot.run()
    assert "QLinearConv" in {node.operator for node in slot.node_times().values()}


def test_conversions_at_the_ends_and_the_producer_do_not_count() -> None:
    nodes = {
        "ReorderInput": NodeTime("ReorderInput", 5.0),
        "before_conv0_out_nchwc": NodeTime("Conv", 7.0),
        "layer_out_nchwc": NodeTime("Conv", 1.0),
        "layer_act": NodeTime("Relu", 0.5),
        "input0_abcd_acdb_layer": NodeTime("jit_uni_f32", 3.0),
        "layer_acdb_abcd_layer_out/sink_port_0": NodeTime("jit_uni_f32", 3.0),
    }
    assert layer_ms(nodes) == pytest.approx(1.5)


def test_the_trace_s_lower_quartile_counts() -> None:
    events = [
        {"cat": "Node", "name": "layer_kernel_time", "dur": duration, "args": {"op_name": "Conv"}}
        for duration in (100, 100, 100, 9000)
    ]
    found = times_in_trace(__import__("json").dumps([*events, {"cat": "Session", "name": "model_run", "dur": 1}]))
    assert found == {"layer": NodeTime("Conv", 0.1)}


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(UsageError, match="activation 'swoosh' of a layer"):
        micro_graph(SHAPES[0].model_copy(update={"activation": "swoosh"}), 8, 8)
