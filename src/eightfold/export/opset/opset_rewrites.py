"""Expresses operators and options of newer opsets in older ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.errors import ModelError
from eightfold.onnx_graph.graph_builder import GraphBuilder
from eightfold.onnx_graph.graph_index import GraphIndex, attribute, set_attribute

if TYPE_CHECKING:
    import onnx

Decomposition = Callable[[GraphIndex, "onnx.NodeProto"], list["onnx.NodeProto"]]
# The last argument is the opset wanted.
Rephrasing = Callable[[GraphIndex, "onnx.NodeProto", int], None]


class _Replacement(GraphBuilder):
    """Nodes that stand for one node; the last one gets its output."""

    def __init__(self, index: GraphIndex, node: onnx.NodeProto) -> None:
        super().__init__(index, node.name or node.output[0])
        self.node = node
        arrays = (index.array(name) for name in node.input[1:])
        weight = next((array for array in arrays if array is not None), None)
        self.dtype = np.dtype(np.float32) if weight is None else weight.dtype

    def number(self, value: float) -> str:
        """A constant of the type of the node's weights, which is float32 or float16."""
        return self.weight(np.array(value, self.dtype))

    def done(self, *further: str) -> list[onnx.NodeProto]:
        """All nodes; `further` are what the node's outputs behind the first one show."""
        from onnx import helper

        self.nodes[-1].output[:] = [self.node.output[0]]
        shown = [pair for pair in zip(further, self.node.output[1:], strict=False) if pair[1]]
        return [*self.nodes, *(helper.make_node("Identity", [name], [output]) for name, output in shown)]


def _layer_norm(index: GraphIndex, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """As torch exports it for older opsets."""
    parts, rank = _Replacement(index, node), len(_shape(index, node))
    axis = attribute(node, "axis", -1) % rank
    axes = list(range(axis, rank))
    mean = parts.add("ReduceMean", node.input[0], axes=axes, keepdims=1)
    deviation = parts.add("Sub", node.input[0], mean)
    variance = parts.add("ReduceMean", parts.add("Mul", deviation, deviation), axes=axes, keepdims=1)
    root = parts.add("Sqrt", parts.add("Add", variance, parts.number(attribute(node, "epsilon", 1e-5))))
    inverse = parts.add("Reciprocal", root) if len(node.output) > 2 else ""
    scaled = parts.add("Mul", parts.add("Div", deviation, root), node.input[1])
    if len(node.input) > 2 and node.input[2]:
        parts.add("Add", scaled, node.input[2])
    return parts.done(mean, inverse)


def _group_norm(index: GraphIndex, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Each group of channels as one instance."""
    parts, shape = _Replacement(index, node), _shape(index, node)
    groups, channels = attribute(node, "num_groups", 1), shape[1]
    one, zero = (index.set_weight(f"{node.output[0]}_{value}", np.full(groups, value, np.float32)) for value in (1, 0))
    rows = parts.reshape(node.input[0], shape[0], groups, -1)
    norm = parts.add("InstanceNormalization", rows, one, zero, epsilon=attribute(node, "epsilon", 1e-5))
    back = parts.reshape(norm, *shape)
    scale, bias = (_by_channel(index, node, name, channels, len(shape)) for name in node.input[1:3])
    parts.add("Add", parts.add("Mul", back, scale), bias)
    return parts.done()


def _by_channel(index: GraphIndex, node: onnx.NodeProto, name: str, channels: int, rank: int) -> str:
    """Opset 18 has one scale per group, opset 21 one per channel."""
    values = _constant(index, node, name)
    spread = np.repeat(values, channels // len(values)).reshape(channels, *[1] * (rank - 2))
    return index.set_weight(f"{node.output[0]}_by_channel", spread)


def _gelu(index: GraphIndex, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Hendrycks & Gimpel, 2016."""
    parts, x = _Replacement(index, node), node.input[0]
    if attribute(node, "approximate", "none") == "tanh":
        cube = parts.add("Mul", parts.add("Mul", parts.add("Mul", x, x), x), parts.number(0.044715))
        bent = parts.add("Tanh", parts.add("Mul", parts.add("Add", x, cube), parts.number(math.sqrt(2 / math.pi))))
    else:
        bent = parts.add("Erf", parts.add("Div", x, parts.number(math.sqrt(2))))
    parts.add("Mul", parts.add("Mul", x, parts.add("Add", bent, parts.number(1.0))), parts.number(0.5))
    return parts.done()


def _hard_swish(index: GraphIndex, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    parts = _Replacement(index, node)
    parts.add("Mul", node.input[0], parts.add("HardSigmoid", node.input[0], alpha=1 / 6, beta=0.5))
    return parts.done()


def _mish(index: GraphIndex, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    parts = _Replacement(index, node)
    parts.add("Mul", node.input[0], parts.add("Tanh", parts.add("Softplus", node.input[0])))
    return parts.done()


def _reduce(index: GraphIndex, node: onnx.NodeProto, opset: int) -> None:
    """Axes were an option before opset 18; an empty list meant all of them."""
    if opset >= 18:
        return
    if len(node.input) > 1 and node.input[1]:
        axes = _constant(index, node, node.input[1])
        if len(axes):
            set_attribute(node, "axes", [int(axis) for axis in axes])
        elif attribute(node, "noop_with_empty_axes", 0):
            raise not_expressible(node, "does nothing")
    del node.input[1:]
    _remove(node, "noop_with_empty_axes")


def _split(index: GraphIndex, node: onnx.NodeProto, opset: int) -> None:
    """A number of parts became an option with opset 18: before, their sizes stand there."""
    count = attribute(node, "num_outputs", 0)
    if count and opset < 18:
        length = _shape(index, node)[attribute(node, "axis", 0)]
        size = -(-length // count)
        sizes = [min(size, length - start) for start in range(0, length, size)]
        node.input.append(index.set_weight(f"{node.output[0]}_sizes", np.array(sizes, np.int64)))
        _remove(node, "num_outputs")


def _pad(index: GraphIndex, node: onnx.NodeProto, opset: int) -> None:
    """Before opset 18 all axes were listed."""
    if attribute(node, "mode", "constant") == "wrap" and opset < 19:
        raise not_expressible(node, "wraps around")
    if opset >= 18:
        return
    if len(node.input) > 3 and node.input[3]:
        rank, axes = len(_shape(index, node)), _constant(index, node, node.input[3])
        given = _constant(index, node, node.input[1]).reshape(2, -1)
        pads = np.zeros((2, rank), np.int64)
        pads[:, axes] = given
        node.input[1] = index.set_weight(f"{node.output[0]}_pads", pads.ravel())
    del node.input[3:]


def _resize(index: GraphIndex, node: onnx.NodeProto, opset: int) -> None:
    """Before opset 18 all axes were listed."""
    if attribute(node, "coordinate_transformation_mode", "") == "half_pixel_symmetric" and opset < 19:
        raise not_expressible(node, "has half_pixel_symmetric coordinates")
    axes = attribute(node, "axes", None)
    if axes is None or opset >= 18:
        return
    shape = _shape(index, node)
    corners = np.repeat(np.array([0, 1], np.float32), len(shape))
    for place, whole in ((1, corners), (2, np.ones(len(shape), np.float32)), (3, np.array(shape, np.int64))):
        if len(node.input) > place and node.input[place]:
            given = _constant(index, node, node.input[place])
            rows = whole.reshape(-1, len(shape))
            rows[:, list(axes)] = given.reshape(len(rows), -1)
            node.input[place] = index.set_weight(f"{node.output[0]}_sizes", whole)
    _remove(node, "axes")


def _sample(index: GraphIndex, node: onnx.NodeProto, opset: int) -> None:
    """Opset 20 renamed the modes."""
    mode = attribute(node, "mode", "linear")
    if opset < 20:
        set_attribute(node, "mode", {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode))


def _dilated_pool(index: GraphIndex, node: onnx.NodeProto, opset: int) -> None:
    if set(attribute(node, "dilations", [1])) == {1} and opset < 19:
        _remove(node, "dilations")


def _reshape(index: GraphIndex, node: onnx.NodeProto, opset: int) -> None:
    """`allowzero` matters only for shapes with a 0."""
    shape = index.array(node.input[1])
    if shape is not None and 0 not in shape and opset < 14:
        _remove(node, "allowzero")


def _shape_of(index: GraphIndex, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Shapes are known, and parts of them were no option before opset 15."""
    from onnx import helper, numpy_helper

    whole = np.array(_shape(index, node), np.int64)
    part = whole[attribute(node, "start", 0) : attribute(node, "end", len(whole))]
    return [helper.make_node("Constant", [], list(node.output), name=node.name, value=numpy_helper.from_array(part))]


# What older opsets have no operator for.
DECOMPOSED: dict[str, Decomposition] = {
    "Gelu": _gelu,
    "GroupNormalization": _group_norm,
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_norm,
    "Mish": _mish,
    "Shape": _shape_of,
}
# Those of them that have one, but mean another thing by it.
OTHERWISE_MEANT = frozenset({"GroupNormalization", "Shape"})
# What they say in another way.
REPHRASED: dict[str, Rephrasing] = {
    "AveragePool": _dilated_pool,
    "GridSample": _sample,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Split": _split,
    **{
        f"Reduce{kind}": _reduce
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
}


def _shape(index: GraphIndex, node: onnx.NodeProto) -> tuple[int, ...]:
    if node.input[0] not in index.shapes:
        raise not_expressible(node, "has an input whose shape nothing tells")
    return index.shapes[node.input[0]]


def _constant(index: GraphIndex, node: onnx.NodeProto, name: str) -> Any:
    values = index.array(name)
    if values is None:
        raise not_expressible(node, f"takes {name!r}, which is no constant")
    return values


def not_expressible(node: onnx.NodeProto, why: str) -> ModelError:
    """An operator without a form in the older opset."""
    return ModelError(f"{node.op_type} {node.name or node.output[0]!r} {why}")


def _remove(node: onnx.NodeProto, name: str) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
