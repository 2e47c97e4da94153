"""Units of layers: a layer with weights and the functions of its values alone."""

from __future__ import annotations

import onnx

from eightfold.export.int8.units import units_of
from eightfold.onnx_graph.graph import ModelGraph

NET = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x) => (float[1,4,8,8] y)
<float[4,3,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1}, float[4,4,1,1] v = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float two = {2}> {
    [first] a = Conv (x, w)
    [gate] s = Sigmoid (a)
    [silu] m = Mul (a, s)
    [second] b = Conv (m, v)
    [scale] c = Mul (b, two)
    [other] d = Conv (x, w)
    [sum] e = Add (c, d)
    [relu] f = Relu (e)
    [pool] p = MaxPool <kernel_shape = [1, 1]> (f)
    [last] y = Tanh (p)
}
"""
UNITS = [("first", "gate", "silu"), ("second", "scale"), ("other",), ("sum", "relu"), ("pool", "last")]


def test_functions_go_with_the_layer_whose_values_alone_they_read() -> None:
    """A sum of two branches belongs to neither."""
    graph = ModelGraph(onnx.parser.parse_model(NET), "net")
    names = [node.name for node in graph.model.graph.node]
    assert units_of(graph, names) == UNITS


def test_only_the_nodes_asked_for_are_named() -> None:
    graph = ModelGraph(onnx.parser.parse_model(NET), "net")
    assert units_of(graph, {"silu", "first", "relu"}) == [("first", "silu"), ("relu",)]
