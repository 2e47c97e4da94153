"""Infers types and shapes of the tensors between a graph's inputs and outputs, without copying large weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eightfold.errors import ModelError
from eightfold.extras import require

if TYPE_CHECKING:
    import onnx
    from onnx import GraphProto

# Larger constants are no sizes or axes.
LARGEST_SIZES_BYTES = 1024


def inferred_shapes(
    model: onnx.ModelProto, stated: Sequence[onnx.ValueInfoProto] = ()
) -> Sequence[onnx.ValueInfoProto]:
    """Types and shapes of everything in between. Large weights go in by shape only: their values are no sizes, and
    copying them in and out would take most of the time.

    Args:
        model: a graph.
        stated: what is known of tensors in between, as where others' operators make them.

    Raises:
        ModelError: the graph contradicts itself.
    """
    return list(_inferred(model, stated).value_info)


def state_outputs(model: onnx.ModelProto) -> None:
    """State types and shapes of outputs that have none, where they can be inferred, in place."""
    if all(
        value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape") for value in model.graph.output
    ):
        return
    try:
        found = {value.name: value for value in _inferred(model, ()).output}
    except ModelError:  # said where the shapes are needed
        return
    for value in model.graph.output:
        if value.type.WhichOneof("value") in ("tensor_type", None) and found[value.name].type.tensor_type.elem_type:
            value.type.CopyFrom(found[value.name].type)


def _inferred(model: onnx.ModelProto, stated: Sequence[onnx.ValueInfoProto]) -> GraphProto:
    onnx = require("onnx", "read models")
    shadow = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    shadow.graph.name = model.graph.name
    shadow.graph.node.extend(model.graph.node)
    shadow.graph.input.extend(model.graph.input)
    shadow.graph.output.extend(model.graph.output)
    shadow.graph.value_info.extend(stated)
    for tensor in model.graph.initializer:
        small = weight_bytes(tensor) <= LARGEST_SIZES_BYTES and not tensor.external_data
        shell = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        shadow.graph.initializer.append(tensor if small else shell)
    try:
        inferred = onnx.shape_inference.infer_shapes(shadow, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(
            f"the graph's shapes are inconsistent ({' '.join(str(error).split())})",
            allowed="a valid ONNX graph whose operators are known",
            remedy="export it again",
        ) from None
    made: GraphProto = inferred.graph
    return made


def state_shapes(model: onnx.ModelProto) -> None:
    """State the types and shapes of everything in between in the graph itself, in place."""
    found = inferred_shapes(model)
    del model.graph.value_info[:]
    model.graph.value_info.extend(found)


def weight_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a weight in the graph, in bytes. Asking its content for its length would copy it."""
    onnx = require("onnx", "read models")
    if tensor.external_data:
        return 0
    try:
        size: int = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:  # no type that is known
        return len(tensor.raw_data)
    return size
