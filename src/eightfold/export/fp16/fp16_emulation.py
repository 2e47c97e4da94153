"""Emulates a 16-bit graph on a CPU that has no such arithmetic.

onnxruntime runs float16 nodes in float32 there and drops the casts between them, so that nothing is ever rounded and
nothing overflows: its answer says little; bfloat16 convolutions it does not run at all. Here every 16-bit tensor is
computed in float32 and then rounded for real. That is how tensor cores work as well, which accumulate in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from eightfold.export.fp16.fp16_graph import ELEM_TYPES, FLOAT, HalfType
from eightfold.export.verify.precision_check import ComparedNetwork, verify_precision
from eightfold.export.verify.test_inputs import InputSets
from eightfold.export.verify.verify import Tolerance
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.shape_inference import state_shapes
from eightfold.runtime.bundle.manifest import Step

if TYPE_CHECKING:
    import onnx


def emulated_fp16(model: onnx.ModelProto, kind: HalfType = "float16") -> onnx.ModelProto:
    """A float32 graph that rounds to 16 bits wherever `model`, a graph of that type, holds such a tensor."""
    from onnx import ModelProto, helper

    made = ModelProto()
    made.CopyFrom(model)
    state_shapes(made)
    inside, outside = (
        {value.name for value in values if value.type.tensor_type.elem_type == ELEM_TYPES[kind]}
        for values in (made.graph.value_info, (*made.graph.input, *made.graph.output))
    )
    for tensor in made.graph.initializer:
        if tensor.data_type == ELEM_TYPES[kind]:
            tensor.CopyFrom(_float_weight(tensor, kind))
    index = GraphIndex(made.graph)
    # What is seen from outside keeps its type and name; nodes read it under another one.
    floats = {name: index.free(f"{name}_in_float") for name in sorted(outside)}
    taken = [value.name for value in made.graph.input if value.name in outside]
    nodes = [helper.make_node("Cast", [name], [floats[name]], to=FLOAT) for name in taken]
    halves = dict.fromkeys(inside, "") | floats
    for node in made.graph.node:
        node.input[:] = [floats.get(name, name) for name in node.input]
        nodes += [node, *_rounded_outputs(index, node, halves, kind)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    del made.graph.value_info[:]
    return made


def verify_fp16(
    before: onnx.ModelProto,
    half: onnx.ModelProto,
    input_sets: InputSets,
    *,
    tolerance: Tolerance,
    kind: HalfType = "float16",
) -> Step:
    """Compare a float32 graph with its 16-bit form; see `verify_precision`.

    Raises VerificationError beyond the tolerance on the first trial, or where a number is not finite any more.
    """
    emulated = emulated_fp16(half, kind)
    return verify_precision(
        ComparedNetwork.of(before), ComparedNetwork.of(emulated), input_sets, step=kind, tolerance=tolerance
    )


def _float_weight(tensor: onnx.TensorProto, kind: HalfType) -> onnx.TensorProto:
    from onnx import numpy_helper

    if kind == "float16":
        array = numpy_helper.to_array(tensor).astype(np.float32)
    else:
        bits = np.frombuffer(tensor.raw_data, "<u2").astype(np.uint32) << 16
        array = bits.view(np.float32).reshape(tuple(tensor.dims))
    return numpy_helper.from_array(array, tensor.name)


def _rounded_outputs(
    index: GraphIndex, node: onnx.NodeProto, halves: Mapping[str, str], kind: HalfType
) -> list[onnx.NodeProto]:
    """Give the node's 16-bit outputs other names, and return the casts that bring them back, rounded: under the name in
    `halves`, where there is one, and then in 16 bits under their own."""
    from onnx import helper

    casts = []
    for place, name in enumerate(node.output):
        if name in halves:
            node.output[place] = index.free(f"{name}_exact")
            bits = name if halves[name] else index.free(f"{name}_half_bits")
            casts.append(helper.make_node("Cast", [node.output[place]], [bits], to=ELEM_TYPES[kind]))
            casts.append(helper.make_node("Cast", [bits], [halves[name] or name], to=FLOAT))
    return casts
