"""Converts a graph to 16-bit floats for strongly typed builders, which run the types of the graph.

Weights and activations become float16 or bfloat16, except where range or precision demands float32: sums over many
elements, exponentials and logarithms, the inner sums of normalizations, and constants that the type cannot hold.
Inputs and outputs of the network keep their types, so that a runtime need not care.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from eightfold.export.fp16.fp16_types import retypable
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.names import captured_names
from eightfold.onnx_graph.onnx_clean import clean
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.onnx_graph.operators import kind as kind_of
from eightfold.onnx_graph.shape_inference import state_shapes

if TYPE_CHECKING:
    import onnx

HalfType = Literal["float16", "bfloat16"]
HALF_TYPES: tuple[HalfType, ...] = get_args(HalfType)
FLOAT = 1  # onnx.TensorProto's element types
ELEM_TYPES: dict[HalfType, int] = {"float16": 10, "bfloat16": 16}
LARGEST: dict[HalfType, float] = {"float16": 65504.0, "bfloat16": 3.3895e38}
# Twice the largest relative error of rounding a value that is neither subnormal nor too large.
ROUNDING: dict[HalfType, float] = {"float16": 2.0**-10, "bfloat16": 2.0**-7}

LARGEST_CODE = 127

# Operators whose result suffers in float16 whatever the weights are: many terms, or a range of many orders.
FLOAT32_OPS = frozenset(
    {
        "CumSum",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Pow",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softplus",
    }
)
# (operator, input index) of inputs that stay float32 in a float16 node: places in images.
FLOAT32_INPUTS = frozenset({("Resize", 1)})


def fp16_graph(
    model: onnx.ModelProto, *, keep_float: Iterable[str] = (), kind: HalfType = "float16"
) -> onnx.ModelProto:
    """The 16-bit form of a float32 graph; `model` is not changed.

    Q/DQ pairs stay, with scales of the new type: what lies between them runs on 8-bit codes and the rest in 16 bits.

    Args:
        model: a fixed-size graph.
        keep_float: names of nodes that stay in float32, beside those whose operator or constants demand it.
        kind: the type that the others get.
    """
    from onnx import ModelProto

    typed = ModelProto()
    typed.CopyFrom(model)
    state_shapes(typed)
    _constants_become_weights(typed.graph)
    _Halving(typed.graph, opset_of(typed), frozenset(keep_float), kind).run()
    del typed.graph.value_info[:]
    return clean(typed)


def rounded_to_half(array: NDArray[np.float32], kind: HalfType) -> NDArray[np.float32]:
    """Each value as the nearest that `kind` holds, ties to even; beyond its range infinite."""
    if kind == "float16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(np.float32)
    return (_bfloat16_bits(array).astype(np.uint32) << 16).view(np.float32)


def fits(array: NDArray[np.float32], kind: HalfType) -> bool:
    """False where rounding changes the whole by more than rounding of values in the type's range can: some overflow,
    or those that count are subnormal or vanish."""
    error = np.linalg.norm((rounded_to_half(array, kind) - array).ravel())
    return bool(error <= ROUNDING[kind] * np.linalg.norm(array.ravel()))


def scales_fit(scales: NDArray[np.float32], kind: HalfType) -> bool:
    """False where rounding some scale, each of which is for a channel of its own, moves the largest value that its
    codes stand for by more than half a code; builders refuse scales that vanish."""
    return bool((np.abs(rounded_to_half(scales, kind) - scales) <= np.abs(scales) / (2 * LARGEST_CODE)).all())


@dataclasses.dataclass
class _Halving:
    """One pass over the nodes in order; `have` is the type that each float tensor has so far."""

    graph: onnx.GraphProto
    opset: int
    keep_float: frozenset[str]
    kind: HalfType

    def run(self) -> None:
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.floats = set(_float_values(self.graph))
        self.have = {value.name: FLOAT for value in self.graph.input}
        self.captured = set(captured_names(self.graph))
        self.float_codes: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[tuple[str, int], str] = {}
        self.names = GraphIndex(self.graph)
        for node in list(self.graph.node):
            self._convert(node)
        self._restore_outputs()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self._drop_unused_weights()

    def _convert(self, node: onnx.NodeProto) -> None:
        half, free = ELEM_TYPES[self.kind], not self._stays_float(node)
        taken, given = retypable(node, self.opset, f"tensor({self.kind})")
        for index, name in enumerate(node.input):
            if name in self.floats:
                other = free and taken(index) and (node.op_type, index) not in FLOAT32_INPUTS
                node.input[index] = self._as(name, half if other else FLOAT)
        for index, name in enumerate(node.output):
            if name in self.floats:
                self.have[name] = half if free and given(index) else FLOAT
        self._follow(node)
        self.nodes.append(node)

    def _follow(self, node: onnx.NodeProto) -> None:
        """Takes over the output type that a node, or others, state."""
        made = self.have.get(node.output[0])
        if kind_of(node) == "Cast" and made is not None:
            _set_cast_target(node, made)
        if kind_of(node) == "DequantizeLinear" and made == FLOAT:
            self.float_codes.add(node.output[0])

    def _stays_float(self, node: onnx.NodeProto) -> bool:
        return (
            node.op_type in FLOAT32_OPS
            or node.name in self.keep_float
            or any(name in self.captured for name in node.output)
            # A cast between the codes and the layer that reads them would keep a builder from using both as one.
            or any(name in self.float_codes for name in node.input)
            or any(not self._fits(node, place) for place, name in enumerate(node.input) if name in self.weights)
        )

    def _fits(self, node: onnx.NodeProto, place: int) -> bool:
        from onnx import numpy_helper

        tensor = self.weights[node.input[place]]
        if tensor.data_type != FLOAT:
            return True
        is_scale = place == 1 and kind_of(node) in ("QuantizeLinear", "DequantizeLinear")
        return (scales_fit if is_scale else fits)(numpy_helper.to_array(tensor), self.kind)

    def _as(self, name: str, want: int) -> str:
        """The name under which tensor `name` has type `want`, made on first use."""
        if self.have.get(name, FLOAT) == want:
            return name
        other = self.made.get((name, want), "")
        if not other:
            other = self.made[name, want] = self.names.free(f"{name}_float" if want == FLOAT else f"{name}_half")
            if name in self.weights:
                self.graph.initializer.append(_fp16_weight(self.weights[name], other, self.kind))
            else:
                self.nodes.append(_cast(name, other, want))
        return other

    def _restore_outputs(self) -> None:
        for value in self.graph.output:
            if value.name in self.floats and self.have.get(value.name, FLOAT) != FLOAT:
                inner = self.names.free(f"{value.name}_before_cast")
                for node in self.nodes:
                    _rename(node.input, value.name, inner)
                    _rename(node.output, value.name, inner)
                self.nodes.append(_cast(inner, value.name, FLOAT))

    def _drop_unused_weights(self) -> None:
        used = {name for node in self.nodes for name in node.input} | self.captured
        used |= {value.name for value in self.graph.output}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _constants_become_weights(graph: onnx.GraphProto) -> None:
    from onnx import numpy_helper

    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in constants:
        tensor = numpy_helper.from_array(numpy_helper.to_array(node.attribute[0].t), node.output[0])
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _float_values(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == FLOAT:
            yield value.name
    for tensor in graph.initializer:
        if tensor.data_type == FLOAT:
            yield tensor.name


def _fp16_weight(tensor: onnx.TensorProto, name: str, kind: HalfType) -> onnx.TensorProto:
    from onnx import TensorProto, numpy_helper

    array: NDArray[np.float32] = numpy_helper.to_array(tensor)
    bits = array.astype(np.float16) if kind == "float16" else _bfloat16_bits(array)
    little_endian = bits.astype(bits.dtype.newbyteorder("<"))
    return TensorProto(name=name, data_type=ELEM_TYPES[kind], dims=tensor.dims, raw_data=little_endian.tobytes())


def _bfloat16_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    nearest = bits + 0x7FFF + ((bits >> 16) & 1)
    return (np.where(np.isnan(array), bits | 0x400000, nearest) >> 16).astype(np.uint16)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=to)


def _set_cast_target(node: onnx.NodeProto, to: int) -> None:
    next(attribute for attribute in node.attribute if attribute.name == "to").i = to


def _rename(names: object, old: str, new: str) -> None:
    for index, name in enumerate(names):  # type: ignore[arg-type, var-annotated]  # protobuf's list has no public type
        if name == old:
            names[index] = new  # type: ignore[index]  # as above
