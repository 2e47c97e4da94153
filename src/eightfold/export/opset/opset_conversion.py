"""A graph written for one version of the standard operator set, in another.

Upwards onnx's own converter does it. Downwards it knows few operators; that way is our own (`opset_lowering`). Neither
sees large weights: they stand for themselves at every opset, and protobuf copies no more than 2 GiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.errors import ModelError, UsageError, first_line
from eightfold.export.opset.opset_lowering import lowered
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.onnx_graph.shape_inference import LARGEST_SIZES_BYTES, weight_bytes

if TYPE_CHECKING:
    import onnx


def require_opset(opset: int | None) -> None:
    """Refuse, before the work, a number that is no version of ONNX's operator set. Raises UsageError."""
    from onnx import defs

    if opset is not None and not 1 <= opset <= defs.onnx_opset_version():
        raise UsageError(f"opset {opset}", allowed=f"1 to {defs.onnx_opset_version()}, which the installed onnx knows")


def with_opset(model: onnx.ModelProto, opset: int, *, remedy: str) -> onnx.ModelProto:
    """The graph with `opset`; `model` itself where it has that already.

    Raises:
        ModelError: it cannot be brought there; `remedy` says what to do then.
    """
    from onnx import checker, shape_inference

    have = opset_of(model)
    if have == opset:
        return model
    require_opset(opset)
    try:
        made = _raised(model, opset) if have < opset else lowered(model, opset)
        # Types are what most operators changed in: onnx knows which of them each version takes.
        checker.check_model(_lean(made), full_check=True)
        return made
    # The converter's own errors are RuntimeErrors; what protobuf cannot hold raises ValueError.
    except (RuntimeError, ValueError, checker.ValidationError, shape_inference.InferenceError) as error:
        reason = first_line(error)
    except ModelError as error:
        reason = error.seen
    raise ModelError(
        f"the graph was written with opset {have} and cannot be converted to {opset} ({reason})",
        allowed=f"opset {have}" + (" and up for this model" if opset < have else ""),
        remedy=remedy,
    )


def _raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """By onnx's converter, to which large weights are inputs."""
    from onnx import version_converter

    if any(node.op_type == "Scan" for node in model.graph.node) and opset_of(model) < 9 <= opset:
        raise ModelError("Scan had a further axis before opset 9")  # which the converter takes no notice of
    lean, large = _lean(model), _large_weights(model)
    made = version_converter.convert_version(lean, opset)
    inputs = [value for value in made.graph.input if value.name not in large]
    del made.graph.input[:]
    made.graph.input.extend(inputs)
    made.graph.initializer.extend(large.values())
    return made


def _large_weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer if weight_bytes(tensor) > LARGEST_SIZES_BYTES}


def _lean(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its large weights as inputs."""
    from onnx import ModelProto, helper

    large = _large_weights(model)
    lean = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    lean.metadata_props.extend(model.metadata_props)
    lean.graph.name = model.graph.name or "network"
    lean.graph.node.extend(model.graph.node)
    lean.graph.output.extend(model.graph.output)
    lean.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in large)
    lean.graph.input.extend(value for value in model.graph.input if value.name not in large)
    lean.graph.input.extend(
        helper.make_tensor_value_info(name, tensor.data_type, tensor.dims) for name, tensor in large.items()
    )
    return lean
