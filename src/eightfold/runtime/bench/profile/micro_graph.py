"""ONNX graphs of one layer each, in float or with Q/DQ pairs, to be timed on their own.

Input and output are of the type that a network passes between layers: float32, or uint8 for INT8. A layer that is not a
convolution stands behind a producer, so that it reads the layout that the back end gives it inside a network; the nodes
of the producer are named `before...` and do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from eightfold.extras import require
from eightfold.runtime.bench.profile.layer_shape import LayerShape, require_known

BEFORE = "before"
OPSET = 17
SCALE, ZERO = 6 / 255, 0  # of every uint8 activation: clipping at 6 costs nothing, as behind a calibrated ReLU6


def micro_graph(
    shape: LayerShape, inputs: int, outputs: int, *, int8: bool = False, float_kinds: Collection[str] = ()
) -> bytes:
    """The bytes of an ONNX model of one layer at these widths.

    Args:
        inputs, outputs: channels; of a kind with one width, `outputs` counts.
        int8: uint8 activations and int8 weights per channel, in Q/DQ pairs.
        float_kinds: kinds that keep float weights in an INT8 graph.
    """
    require_known(shape)
    graph = _Graph(int8, float_weights=shape.kind in float_kinds)
    maker = _LAYERS.get(shape.kind, _conv)
    made = maker(graph, shape, inputs if shape.two_sided else outputs, outputs)
    return graph.finished(made, (shape.batch, outputs, *shape.output_size()), shape)


class _Graph:
    """Nodes, weights and inputs of a graph in the making."""

    def __init__(self, int8: bool, float_weights: bool) -> None:
        self.onnx = require("onnx", "write the graphs of a profile")
        self.int8, self.float_weights = int8, float_weights or not int8
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self._random = np.random.default_rng(0)
        if int8:
            self.constant("scale", np.float32(SCALE))
            self.constant("zero", np.uint8(ZERO))

    def constant(self, name: str, value: Any) -> str:
        self.weights.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        name = name or f"layer{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def input(self, shape: Sequence[int]) -> str:
        """A network input as float: of an INT8 graph behind a DequantizeLinear."""
        name, types = f"input{len(self.inputs)}", self.onnx.TensorProto
        kind = types.UINT8 if self.int8 else types.FLOAT
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        return self.node("DequantizeLinear", [name, "scale", "zero"], f"dq_{name}") if self.int8 else name

    def rounded(self, value: str) -> str:
        """Behind a Q/DQ pair in an INT8 graph; as it is in a float one."""
        if not self.int8:
            return value
        made = self.node("QuantizeLinear", [value, "scale", "zero"], f"q{len(self.nodes)}")
        return self.node("DequantizeLinear", [made, "scale", "zero"], f"dq{len(self.nodes)}")

    def weight(self, name: str, shape: Sequence[int], axis: int) -> str:
        """A weight with one scale per index of `axis`."""
        if self.float_weights:
            return self.constant(name, self._random.standard_normal(shape).astype(np.float32))
        self.constant(f"{name}_q", self._random.integers(-127, 128, shape).astype(np.int8))
        self.constant(f"{name}_scale", np.full(shape[axis], 0.01, np.float32))
        self.constant(f"{name}_zero", np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", [f"{name}_q", f"{name}_scale", f"{name}_zero"], f"dq_{name}", axis=axis)

    def bias(self, name: str, size: int) -> str:
        if self.float_weights:
            return self.constant(name, np.zeros(size, np.float32))
        self.constant(f"{name}_q", np.zeros(size, np.int32))
        self.constant(f"{name}_scale", np.full(size, SCALE * 0.01, np.float32))
        self.constant(f"{name}_zero", np.zeros(size, np.int32))
        return self.node("DequantizeLinear", [f"{name}_q", f"{name}_scale", f"{name}_zero"], f"dq_{name}", axis=0)

    def produced(self, shape: Sequence[int]) -> str:
        """An input behind a depthwise convolution and a pooling of one pixel, as if layers came before."""
        channels, number = shape[1], len(self.inputs)
        x = self.input(shape)
        if len(shape) != 4:
            return x
        weight = self.weight(f"{BEFORE}_w{number}", (channels, 1, 1, 1), 0)
        made = self.node("Conv", [x, weight], f"{BEFORE}_conv{number}", group=channels, kernel_shape=[1, 1])
        return self.node("MaxPool", [self.rounded(made)], f"{BEFORE}_pool{number}", kernel_shape=[1, 1])

    def finished(self, value: str, shape: Sequence[int], layer: LayerShape) -> bytes:
        helper, types = self.onnx.helper, self.onnx.TensorProto
        value = _activated(self, value, layer.activation)
        if self.int8:
            value = self.node("QuantizeLinear", [value, "scale", "zero"], "q_output")
        shape = shape if layer.kind != "linear" else (layer.batch * (layer.size[0] if layer.size else 1), shape[1])
        output = helper.make_tensor_value_info(value, types.UINT8 if self.int8 else types.FLOAT, list(shape))
        graph = helper.make_graph(self.nodes, "layer", self.inputs, [output], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        data: bytes = model.SerializeToString()
        return data


def _geometry(shape: LayerShape) -> dict[str, Any]:
    rank = len(shape.size)
    return {
        "kernel_shape": list(shape.kernel),
        "strides": list(shape.stride or (1,) * rank),
        "pads": list(shape.padding or (0,) * rank) * 2,
    }


def _conv(graph: _Graph, shape: LayerShape, inputs: int, outputs: int) -> str:
    transposed = shape.kind == "conv_transpose"
    groups = outputs if shape.kind == "depthwise" else shape.groups
    x = graph.input((shape.batch, inputs, *shape.size))
    sizes = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    parts = [x, graph.weight("w", (*sizes, *shape.kernel), 1 if transposed and groups == 1 else 0)]
    if not (transposed and groups > 1):
        parts.append(graph.bias("b", outputs))
    dilations = list(shape.dilation or (1,) * len(shape.size))
    op = "ConvTranspose" if transposed else "Conv"
    made = graph.node(op, parts, "layer", group=groups, dilations=dilations, **_geometry(shape))
    if shape.residual:
        other = graph.produced((shape.batch, outputs, *shape.output_size()))
        made = graph.node("Add", [graph.rounded(made), other], "layer_sum")
    return made


def _linear(graph: _Graph, shape: LayerShape, inputs: int, outputs: int) -> str:
    rows = shape.batch * (shape.size[0] if shape.size else 1)
    parts = [graph.input((rows, inputs)), graph.weight("w", (outputs, inputs), 0), graph.bias("b", outputs)]
    return graph.node("Gemm", parts, "layer", transB=1)


def _pool(op: str) -> Callable[[_Graph, LayerShape, int, int], str]:
    def make(graph: _Graph, shape: LayerShape, _: int, channels: int) -> str:
        x = graph.produced((shape.batch, channels, *shape.size))
        return graph.node(op, [x], "layer", **({} if op == "GlobalAveragePool" else _geometry(shape)))

    return make


def _together(op: str) -> Callable[[_Graph, LayerShape, int, int], str]:
    def make(graph: _Graph, shape: LayerShape, _: int, channels: int) -> str:
        values = [graph.produced((shape.batch, channels, *shape.size)) for _ in range(max(shape.parts, 2))]
        made = values[0]
        for number, value in enumerate(values[1:]):
            made = graph.node(op, [made if number == 0 else graph.rounded(made), value], f"layer_{number}")
        return made

    return make


def _scale(graph: _Graph, shape: LayerShape, _: int, channels: int) -> str:
    x = graph.produced((shape.batch, channels, *shape.size))
    return graph.node("Mul", [x, graph.input((shape.batch, channels, *(1,) * len(shape.size)))], "layer")


def _concat(graph: _Graph, shape: LayerShape, _: int, channels: int) -> str:
    parts = max(shape.parts, 2)
    each = [channels // parts] * (parts - 1)
    each.append(channels - sum(each))
    values = [graph.produced((shape.batch, max(width, 1), *shape.size)) for width in each]
    return graph.node("Concat", values, "layer", axis=1)


def _resize(graph: _Graph, shape: LayerShape, _: int, channels: int) -> str:
    x = graph.produced((shape.batch, channels, *shape.size))
    scales = graph.constant("scales", np.array([1, 1, *shape.stride], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.node("Resize", [x, "", scales], "layer", **how)


def _identity(graph: _Graph, shape: LayerShape, _: int, channels: int) -> str:
    """An activation alone, which `finished` adds."""
    return graph.produced((shape.batch, channels, *shape.size))


def _norm(graph: _Graph, shape: LayerShape, _: int, channels: int) -> str:
    x = graph.produced((shape.batch, channels, *shape.size))
    vectors = [graph.constant(name, np.full(channels, value, np.float32)) for name, value in _NORM.items()]
    return graph.node("BatchNormalization", [x, *vectors], "layer")


_NORM: Mapping[str, float] = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "var": 1.0}
_LAYERS: Mapping[str, Callable[[_Graph, LayerShape, int, int], str]] = {
    "linear": _linear,
    "max_pool": _pool("MaxPool"),
    "average_pool": _pool("AveragePool"),
    "global_pool": _pool("GlobalAveragePool"),
    "add": _together("Add"),
    "mul": _together("Mul"),
    "scale": _scale,
    "concat": _concat,
    "resize": _resize,
    "activation": _identity,
    "norm": _norm,
}


def _activated(graph: _Graph, value: str, activation: str) -> str:
    """The operators that exporters write for an activation."""
    if activation == "relu6":
        bounds = [graph.constant("low", np.float32(0)), graph.constant("high", np.float32(6))]
        return graph.node("Clip", [value, *bounds], "layer_act")
    if activation == "silu":
        value = graph.rounded(value)
        gate = graph.rounded(graph.node("Sigmoid", [value], "layer_gate"))
        return graph.node("Mul", [value, gate], "layer_act")
    if activation == "gelu":
        value = graph.rounded(value)
        root, one, half = (graph.constant(f"gelu{each}", np.float32(each)) for each in (2**0.5, 1.0, 0.5))
        error = graph.node("Erf", [graph.node("Div", [value, root], "layer_div")], "layer_erf")
        both = graph.node("Mul", [value, graph.node("Add", [error, one], "layer_add")], "layer_mul")
        return graph.node("Mul", [both, half], "layer_act")
    if not activation:
        return value
    if activation in ("hardswish", "hardsigmoid", "sigmoid", "tanh"):
        value = graph.rounded(value)
    return graph.node(_ACTIVATIONS[activation], [value], "layer_act")


_ACTIVATIONS: Mapping[str, str] = {
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "hardswish": "HardSwish",
    "sigmoid": "Sigmoid",
    "hardsigmoid": "HardSigmoid",
    "tanh": "Tanh",
}
