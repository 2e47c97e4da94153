"""Shape and type inference that does not copy the weights, and so has no limit on their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eightfold.errors import ModelError
from eightfold.export.onnx_files import weight_bytes

if TYPE_CHECKING:
    import onnx

# Larger constants are no sizes or axes.
LARGEST_SIZES_BYTES = 1024


def state_shapes(model: onnx.ModelProto) -> None:
    """State the types and shapes of everything in between."""
    found = inferred_shapes(model)
    del model.graph.value_info[:]
    model.graph.value_info.extend(found)


def inferred_shapes(model: onnx.ModelProto) -> Sequence[onnx.ValueInfoProto]:
    """Types and shapes of everything in between. Large weights go in by shape only: their values are no sizes, and
    copying them in and out would take most of the time."""
    from onnx import ModelProto, TensorProto, shape_inference

    shadow = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    shadow.graph.name = model.graph.name
    shadow.graph.node.extend(model.graph.node)
    shadow.graph.input.extend(model.graph.input)
    shadow.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        small = weight_bytes(tensor) <= LARGEST_SIZES_BYTES and not tensor.external_data
        shell = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        shadow.graph.initializer.append(tensor if small else shell)
    try:
        inferred = shape_inference.infer_shapes(shadow, data_prop=True)
    except shape_inference.InferenceError as error:
        raise ModelError(
            f"the graph's shapes do not work out ({' '.join(str(error).split())})",
            allowed="a valid ONNX graph whose operators are known",
            remedy="export it again",
        ) from None
    return list(inferred.graph.value_info)
